// Explorers: controls choose, panels show what belongs to the choice. No library, no server, no kernel.
// _explorer.py writes, beside this script, one <div class="nfcodes-explorer"> with its data as JSON and says what they mean.
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  let count = 0;

  // An element with attributes and children; null attributes are left out.
  const make = (tag, attributes = {}, ...children) => {
    const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  // What belongs to the choice: `data` is nested once for every control named in `by`.
  const pick = (data, by, state) => (by || []).reduce((inner, name) => inner[state[name]], data);

  // Show tile number `index` of a sheet as the background of `node`.
  const showTile = (node, sheet, index) => {
    const place = (at, n) => (n > 1 ? (100 * at) / (n - 1) : 0) + "%";
    node.style.backgroundImage = `url(${sheet.src})`;
    node.style.backgroundSize = `${100 * sheet.columns}% ${100 * sheet.rows}%`;
    node.style.backgroundPosition =
      place(index % sheet.columns, sheet.columns) + " " + place(Math.floor(index / sheet.columns), sheet.rows);
    node.style.aspectRatio = sheet.aspect;
  };

  // Controls: each returns [node, refresh]; choose(index) tells the explorer.

  const slider = (control, id, state, choose) => {
    const last = control.options.length - 1;
    const input = make("input", { type: "range", id, min: 0, max: last, step: 1 });
    const output = make("output", { for: id });
    const row = make("div", { class: "nfx-slider" }, make("label", { for: id }, control.label), input, output);
    let timer = null;
    const stop = () => {
      clearInterval(timer);
      timer = null;
      if (play) play.textContent = "Play";
    };
    const play = control.play ? make("button", { type: "button", class: "nfx-play" }, "Play") : null;
    input.addEventListener("input", () => {
      stop();
      choose(Number(input.value));
    });
    if (play) {
      row.append(play);
      play.addEventListener("click", () => {
        if (timer !== null) return stop();
        if (state[control.name] === last) choose(0);
        play.textContent = "Pause";
        timer = setInterval(() => {
          if (row.isConnected && state[control.name] < last) choose(state[control.name] + 1);
          if (!row.isConnected || state[control.name] === last) stop();
        }, 600);
      });
    }
    return [row, () => {
      input.value = state[control.name];
      output.textContent = control.options[state[control.name]];
      input.setAttribute("aria-valuetext", output.textContent);
    }];
  };

  const choice = (control, id, state, choose) => {
    const buttons = control.options.map((text, index) => {
      const input = make("input", { type: "radio", name: id, id: `${id}-${index}` });
      input.addEventListener("change", () => choose(index));
      return [input, make("label", { for: `${id}-${index}` }, text)];
    });
    const set = make("fieldset", { class: "nfx-choice" }, make("legend", {}, control.label), ...buttons.flat());
    return [set, () => buttons.forEach(([input], index) => (input.checked = index === state[control.name]))];
  };

  // Pictures to choose from, laid out as a map of `columns`, or in a row that wraps. Arrow keys move, one tab stop.
  const grid = (control, id, state, choose, sheets) => {
    const n = control.n, columns = control.columns;
    const title = make("div", { id: id + "-title", class: "nfx-title" }, control.label);
    const group = make("div", { role: "radiogroup", "aria-labelledby": id + "-title", class: "nfx-grid" });
    if (columns) group.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    else group.classList.add("nfx-wrap");
    const buttons = Array.from({ length: n }, (_, index) => {
      const button = make("button", { type: "button", role: "radio" }, make("span", { class: "nfx-tile" }));
      button.addEventListener("click", () => choose(index));
      return button;
    });
    group.append(...buttons);
    group.addEventListener("keydown", (event) => {
      const at = state[control.name], row = columns || n;
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: columns ? -row : -1, ArrowDown: columns ? row : 1 };
      let to = event.key === "Home" ? 0 : event.key === "End" ? n - 1 : at + (steps[event.key] || 0);
      if (event.key in steps || event.key === "Home" || event.key === "End") {
        event.preventDefault();
        to = to >= 0 && to < n ? to : at;
        choose(to);
        buttons[to].focus();
      }
    });
    let shown = null;
    return [make("div", {}, title, group), () => {
      const view = pick(control.views, control.by, state);
      buttons.forEach((button, index) => {
        const chosen = index === state[control.name];
        button.setAttribute("aria-checked", chosen);
        button.tabIndex = chosen ? 0 : -1;
        if (view === shown) return;
        const tile = button.firstChild, size = view.sizes ? view.sizes[index] : 1;
        button.setAttribute("aria-label", view.labels[index]);
        button.title = view.labels[index];
        button.classList.toggle("nfx-empty", size === 0);
        tile.style.width = 100 * size + "%";
        showTile(tile, sheets[view.sheet], index);
      });
      shown = view;
    }];
  };

  // Panels: each returns [node, refresh].

  const MARKS = {
    circle: ({ x, y, r }) => make("svg:circle", { cx: x, cy: y, r, class: "nfx-clean" }),
    cross: ({ x, y, r }) => make("svg:path", {
      d: `M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}`, class: "nfx-attacked" }),
    triangle: ({ x, y, r }) => make("svg:path", {
      d: `M${x} ${y - 1.5 * r}L${x + 1.4 * r} ${y + r}L${x - 1.4 * r} ${y + r}Z`, class: "nfx-noise" }),
    square: ({ x, y, r }) => make("svg:rect", { x: x - r, y: y - r, width: 2 * r, height: 2 * r, class: "nfx-chosen" }),
    line: ({ x, y, x2, y2 }) => make("svg:path", { d: `M${x} ${y}L${x2} ${y2}`, class: "nfx-line" }),
  };

  const picture = (panel, state) => {
    const image = make("img", { alt: "" });
    const overlay = make("svg:svg", { "aria-hidden": "true" });
    const note = make("figcaption", {}, panel.title);
    const node = make("figure", {}, note, make("div", { class: "nfx-picture" }, image, overlay));
    return [node, () => {
      const { src, alt, width, height } = pick(panel.pictures, panel.by, state);
      const marked = panel.marks ? pick(panel.marks, panel.marks_by, state) : { items: [], text: "" };
      if (image.getAttribute("src") !== src) {
        image.src = src;
        image.width = width;
        image.height = height;
      }
      image.alt = marked.text ? `${alt} ${marked.text}` : alt;
      overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
      overlay.replaceChildren(...marked.items.map((item) => MARKS[item.kind](item)));
    }];
  };

  const images = (panel, state, sheets) => {
    const row = make("div", { class: "nfx-images" });
    const node = make("figure", {}, make("figcaption", {}, panel.title), row);
    return [node, () => {
      const sheet = sheets[pick(panel.sheet, panel.sheet_by, state)];
      row.replaceChildren(...pick(panel.items, panel.by, state).map(([index, label]) => {
        const tile = make("span", { class: "nfx-tile", role: "img", "aria-label": label });
        showTile(tile, sheet, index);
        return make("span", { class: "nfx-labelled" }, tile, make("span", { "aria-hidden": "true" }, label));
      }));
    }];
  };

  // Shares as bars in a table: the number is there for those who do not see the bar.
  const bars = (panel, state) => {
    const rows = panel.names.map((name, index) => {
      const bar = make("span", { class: "nfx-bar" });
      bar.style.backgroundColor = panel.colors[index];
      const value = make("span", { class: "nfx-value" });
      return { bar, value, row: make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, bar, value)) };
    });
    const table = make("table", {}, make("caption", {}, panel.title), make("tbody", {}, ...rows.map((each) => each.row)));
    return [table, () => {
      const shares = pick(panel.shares, panel.by, state);
      rows.forEach(({ bar, value }, index) => {
        bar.style.width = `calc(${shares ? shares[index] : 0} * (100% - 3.2em))`;
        bar.hidden = !shares || shares[index] < 0.005;
        value.textContent = shares ? shares[index].toFixed(2) : "–";
      });
    }];
  };

  const table = (panel, state) => {
    const head = make("tr", {}, ...panel.columns.map((name) => make("th", { scope: "col" }, name)));
    const body = make("tbody");
    const inner = make("table", {}, make("caption", {}, panel.title), make("thead", {}, head), body);
    const node = make("div", { class: "nfx-scroll", role: "region", "aria-label": panel.title, tabindex: 0 }, inner);
    return [node, () => body.replaceChildren(...pick(panel.rows, panel.by, state).map((cells) =>
      make("tr", {}, ...cells.map((cell, at) => make(at ? "td" : "th", at ? {} : { scope: "row" }, cell)))))];
  };

  // What the choice means, in words; read out when it changes.
  const text = (panel, state) => {
    const node = make("p", { "aria-live": "polite", class: "nfx-text" });
    return [node, () => {
      const said = pick(panel.texts, panel.by, state);
      if (node.textContent !== said) node.textContent = said;
    }];
  };

  // Colours or, where there is none, marks and what they mean.
  const key = (panel) => [make("ul", { class: "nfx-key" }, ...panel.items.map(([color, name]) => {
    const swatch = make("span", { class: "nfx-swatch", "aria-hidden": "true" });
    if (color) swatch.style.backgroundColor = color;
    return make("li", {}, ...(color ? [swatch] : []), name);
  })), () => {}];

  const CONTROLS = { slider, choice, grid }, PANELS = { picture, images, bars, table, text, key };

  const start = (root) => {
    if (root.dataset.ready) return;
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const state = Object.fromEntries(data.controls.map((control) => [control.name, control.value]));
    const refreshes = [];
    const refresh = () => refreshes.forEach((each) => each());
    const controls = data.controls.map((control) => {
      const choose = (index) => {
        state[control.name] = index;
        refresh();
      };
      const [node, update] = CONTROLS[control.kind](control, `nfx-${Date.now().toString(36)}-${count++}`, state, choose, data.sheets);
      node.dataset.control = control.name;
      refreshes.push(update);
      return node;
    });
    const panels = data.panels.map((panel) => {
      const [node, update] = PANELS[panel.kind](panel, state, data.sheets);
      node.classList.add("nfx-panel", `nfx-${panel.kind}`, `nfx-${panel.size || "whole"}`);
      node.dataset.panel = panel.name;
      refreshes.push(update);
      return node;
    });
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", data.title);
    root.append(make("div", { class: "nfx-controls" }, ...controls), make("div", { class: "nfx-panels" }, ...panels));
    refresh();
    root.dataset.ready = "true";
  };

  document.querySelectorAll(".nfcodes-explorer").forEach(start);
  performance.mark("nfcodes-explorers-ready");
})();
