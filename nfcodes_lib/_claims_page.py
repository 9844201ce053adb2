"""The page of the claims, written from their results by :mod:`nfcodes_lib.claims`; nobody edits what it writes."""

from __future__ import annotations

from collections import Counter

HEAD = """<!-- Written by `python -m nfcodes_lib.claims --page` from book/claims.json. Edits here are overwritten. -->
# Are the claims true?

Lee and Vijayan {{cite}}`lee2022codes` claim that the codes of hidden layers are few, that they follow the network's
answers, and more. Each claim that their abstracts make was put to a test on nine networks: three kinds (*residual*;
*plain*, without skip connections; *robust*, the residual one trained on adversarial examples), three training runs of
each, and three maps per layer and network. All of them classify Fashion-MNIST. The data set, the networks and every
setting are ours, so this is a test of the claims as statements, not a replication of the paper's numbers.

**In short.** {summary}

A verdict is about the statement as tested, not about what it may mean. The chapters add what a reader should know
before leaning on one: a map of the raw pixels tells labels better than a map of `layer1`, codes of the last layer
follow any network's answers by construction, and plain *k*-means tells labels as well as a map does ([chapter
3](../notebooks/03_correlate_codes.ipynb)); what a decoder draws is in part the decoder's taste ([chapter
5](../notebooks/05_reconstruct_features.ipynb)).

## The table

An *effect* is positive if the claim is right. It is given for each kind of network as the mean over its training runs
with Student's 95 % interval (with three runs, a wide one, which does not know where a measure ends: that of a rank
correlation can reach beyond −1); the *control* is what the same measure gives where the
claim has nothing to say. Where that is the untrained network, its batch norm has been set by 1,000 images, without
which it would be too easy to beat ([chapter 4](../notebooks/04_measure_geometry.ipynb)). A row is *reproduced* if the
intervals of all three kinds lie above zero and above the control, and *p* over the nine networks, corrected for the
{n_rows} tests made (Holm), is below {alpha}; it *depends* if some kinds pass.

"""

FOOT = """
## How to repeat it

`python -m nfcodes_lib.claims` measures {n_networks} networks ({n_trained} trained, {n_untrained} untrained) and writes
`book/claims.json`, where every single measurement is kept, and this page; it can be interrupted and run again. It took
{minutes:.0f} minutes of one core ({processor}). The maps have {side} × {side} units, {epochs} epochs, random starts;
they are trained on {fit:,} training images, and {judge:,} test images are judged (intrinsic dimension: {dimension:,};
attacks: {attacked:,}; units reconstructed in each layer: {reconstructed}). Python {python}, PyTorch {torch}, NumPy
{numpy}.

A test of the library measures a part again and compares it with this table, and writes this page again and compares it
too. So neither can drift from the code, nor be edited by hand.
"""

ALPHA = 0.05


def page(results: dict, rows) -> str:
    """The whole page as MyST Markdown.

    Parameters
    ----------
    results : dict
        The content of ``book/claims.json``.
    rows : sequence of nfcodes_lib.claims.Row
        In the order of ``results["rows"]``.
    """
    lines = [HEAD.format(summary=summary(results["rows"]), n_rows=len(rows), alpha=ALPHA)]
    lines.append("| claim | effect, three kinds | verdict |\n|---|---|---|\n")
    lines += [_line(row, found) for row, found in zip(rows, results["rows"], strict=True)]
    lines.append("\n## One by one\n\n")
    lines += [_entry(row, found) for row, found in zip(rows, results["rows"], strict=True)]
    settings, versions = results["settings"], results["versions"]
    n_networks = len(results["measurements"])
    n_untrained = sum("untrained" in name for name in results["measurements"])
    counts = {"n_networks": n_networks, "n_trained": n_networks - n_untrained, "n_untrained": n_untrained}
    names = ("fit", "judge", "dimension", "attacked", "reconstructed", "epochs", "minutes", "processor")
    sizes = {name: settings[name] for name in names}
    lines.append(FOOT.format(**counts, **sizes, side=settings["map"][0], **versions))
    return "".join(lines)


def summary(found: list[dict]) -> str:
    """How many rows got which verdict."""
    counts = Counter(each["verdict"] for each in found)
    told = {
        "reproduced": "hold on all three kinds of network",
        "depends": "hold on some of them",
        "not reproduced": "do not hold",
    }
    parts = [f"{counts[name]} {text}" for name, text in told.items() if counts[name]]
    return f"Of {len(found)} statements tested, {', '.join(parts)}."


def _line(row, found: dict) -> str:
    """One row of the overview."""
    effects = ", ".join(f"{each['effect']:+.2f}" for each in found["kinds"].values())
    return f"| **{row.claim}** {row.statement} | {effects} | {found['verdict']} |\n"


def _entry(row, found: dict) -> str:
    """One row as a small table, which fits a phone."""
    title = f"### {row.claim}. {row.statement[0].upper()}{row.statement[1:]}\n\n"
    head = "| network | effect (95 % interval) | control |\n|---|---|---|\n"
    body = "".join(
        f"| {kind} | {each['effect']:+.3f} ({each['interval'][0]:+.3f} to {each['interval'][1]:+.3f}) | "
        f"{'–' if each['control'] is None else format(each['control'], '+.3f')} |\n"
        for kind, each in found["kinds"].items()
    )
    p_value = found["corrected_p_value"]
    shown = "below 0.001" if p_value < 0.001 else f"{p_value:.3f}"
    why = "" if found["verdict"] != "not reproduced" or p_value >= ALPHA else ": the control does as well"
    where = f"{{ref}}`a figure <{row.figure}>` of [chapter {int(row.chapter[:2])}](../notebooks/{row.chapter}.ipynb)"
    verdict = f"\n**{found['verdict'].capitalize()}**{why} (corrected *p* {shown}). See {where}.\n\n"
    measured = f"*{row.measure[0].upper()}{row.measure[1:]}.* Control: {row.control_name}.\n\n"
    return title + measured + head + body + verdict
