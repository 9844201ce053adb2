"""One progress bar for the whole library: tqdm.auto, and silence where nobody is watching."""

from __future__ import annotations

import os

from tqdm.auto import tqdm


def progress_bar(iterable=None, *, show: bool | None = None, **options) -> tqdm:
    """Return a tqdm bar over `iterable`.

    Parameters
    ----------
    iterable : iterable, optional
    show : bool, optional
        None shows the bar unless the environment variable ``CI`` or ``TQDM_DISABLE`` is set, or, outside a notebook,
        standard error is no terminal.
    **options
        For tqdm: ``total``, ``desc``, ``unit``.
    """
    if show is None:
        silent = any(os.environ.get(name, "") not in ("", "0") for name in ("CI", "TQDM_DISABLE"))
        disable = True if silent else None
    else:
        disable = not show
    return tqdm(iterable, disable=disable, leave=False, **options)
