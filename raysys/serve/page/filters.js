// The controls beside the results: choices and bounds of the attributes of the index, at most 2 items of a
// seller, and two shelves side by side.

import { isLimited, NO_LIMITS } from "./queries.js";
import { labelOf, numberText, priceText, setText, valueText } from "./text.js";

const MAX_PER_SELLER = { seller: 2 };

let attributes = {}; // of GET /v1/attributes
let limits = NO_LIMITS;
let controls = []; // { name, value of a choice, update() }
let onChange = () => {};

const byId = (id) => document.getElementById(id);

// `open` is called with { filter, maxPer, isCompared } when the user changes one of them.
export function addFilterListeners(open) {
  onChange = open;
  byId("filters-button").addEventListener("click", () => setOpen(byId("filters").hidden));
  byId("filters-done").addEventListener("click", close);
  byId("filters").addEventListener("keydown", (event) => event.key === "Escape" && close());
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["clear-filters", "clear-empty"]) byId(id).addEventListener("click", clear);
  byId("diverse").addEventListener("change", ({ target }) => {
    const { seller, ...others } = limits.maxPer;
    change({ maxPer: target.checked ? { ...others, ...MAX_PER_SELLER } : others });
  });
  byId("compare").addEventListener("change", ({ target }) => change({ isCompared: target.checked }));
}

export function setAttributes(loaded) {
  attributes = loaded;
  const hasControls = Object.values(attributes).some(({ kind, values }) => kind === "number" || values);
  byId("filters-button").hidden = !hasControls;
  byId("diverse-label").hidden = !("seller" in attributes);
  renderControls();
}

// Show the limits of a view.
export function renderLimits({ filter, maxPer, isCompared }) {
  limits = { filter, maxPer, isCompared };
  const number = Object.keys(filter).length;
  byId("num-filters").textContent = number || "";
  byId("num-filters").hidden = !number;
  byId("filters-button").setAttribute("aria-label", number ? `Filters, ${number} active` : "Filters");
  byId("active-filters").hidden = !isLimited(limits);
  setText(byId("filter-summary"), summaryOf(limits));
  byId("diverse").checked = maxPer.seller !== undefined;
  byId("compare-label").hidden = !isLimited(limits);
  byId("compare").checked = isCompared;
  const isListed = (name, value) => controls.some((each) => each.name === name && each.value === value);
  const hasAll = Object.keys(filter).every((name) => chosenOf(name).every((value) => isListed(name, value)));
  // A control that has the focus must stay, so controls are made again only for a value that has none.
  if (hasAll) for (const { update } of controls) update();
  else renderControls();
}

export function summaryOf({ filter, maxPer }) {
  const parts = Object.entries(filter).map(([name, conditions]) => conditionText(name, conditions ?? {}));
  parts.push(...Object.entries(maxPer).map(([name, number]) => `At most ${number} of a ${name}`));
  return parts.join(" · ");
}

function conditionText(name, { in: values, not, gte, lte }) {
  const format = (number) => (name === "price" ? priceText(number) : numberText(number));
  const parts = [];
  if (Array.isArray(values)) parts.push(values.map(valueText).join(", "));
  if (Array.isArray(not)) parts.push(`not ${not.map(valueText).join(", ")}`);
  if (gte !== undefined) parts.push(`from ${format(gte)}`);
  if (lte !== undefined) parts.push(`up to ${format(lte)}`);
  return `${labelOf(name)}: ${parts.join(" ")}`;
}

function change(changes) {
  const changed = { ...limits, ...changes };
  onChange({ ...changed, isCompared: changed.isCompared && isLimited(changed) });
}

function clear() {
  change({ filter: {}, maxPer: {} });
  byId("filters-button").focus(); // the button that had the focus is hidden
}

// Set one operator of an attribute; undefined removes it.
function setCondition(name, operator, operand) {
  const conditions = { ...limits.filter[name], [operator]: operand };
  if (operand === undefined) delete conditions[operator];
  const filter = { ...limits.filter, [name]: conditions };
  if (!Object.keys(conditions).length) delete filter[name];
  change({ filter });
}

function setOpen(isOpen) {
  byId("filters").hidden = !isOpen;
  byId("filters-button").setAttribute("aria-expanded", isOpen);
}

function close() {
  setOpen(false);
  byId("filters-button").focus();
}

// ---- Controls

function renderControls() {
  controls = [];
  const numValues = (attribute) => attribute.num_values ?? 0; // few choices first
  const ordered = Object.entries(attributes).sort(([, a], [, b]) => numValues(a) - numValues(b));
  const groups = ordered.flatMap(([name, attribute]) => {
    const inputs = attribute.kind === "number" ? boundsOf(name, attribute) : choicesOf(name, attribute);
    return inputs ? [groupOf(name, attribute, inputs)] : [];
  });
  byId("filter-groups").replaceChildren(...groups);
  for (const { update } of controls) update();
}

function groupOf(name, { values, num_values }, inputs) {
  const group = document.createElement("fieldset");
  const legend = document.createElement("legend");
  setText(legend, labelOf(name));
  group.append(legend, inputs);
  if (values && num_values > values.length) {
    const note = document.createElement("p");
    note.textContent = `The ${values.length} most frequent of ${numberText(num_values)}`;
    group.append(note);
  }
  return group;
}

function choicesOf(name, { values }) {
  if (!values) return null;
  const rare = chosenOf(name).filter((value) => !values.some((each) => each.value === value));
  const choices = document.createElement("div");
  choices.className = "choices";
  choices.append(...rare.map((value) => choiceOf(name, value, "")));
  choices.append(...values.map(({ value, count }) => choiceOf(name, value, numberText(count))));
  return choices;
}

function choiceOf(name, value, count) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const text = document.createElement("span");
  const number = document.createElement("small");
  input.type = "checkbox";
  setText(text, valueText(value));
  number.textContent = count;
  input.addEventListener("change", () => {
    const others = chosenOf(name).filter((each) => each !== value);
    const chosen = input.checked ? [...others, value] : others;
    setCondition(name, "in", chosen.length ? chosen : undefined);
  });
  controls.push({ name, value, update: () => (input.checked = chosenOf(name).includes(value)) });
  label.append(input, text, number);
  return label;
}

function boundsOf(name, { min, max }) {
  const bounds = document.createElement("div");
  bounds.className = "bounds";
  for (const [operator, text, limit] of [["gte", "From", min], ["lte", "To", max]]) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "number", step: "any", inputMode: "decimal", placeholder: limit });
    input.addEventListener("change", () => {
      setCondition(name, operator, input.value === "" ? undefined : input.valueAsNumber);
    });
    controls.push({ name, update: () => (input.value = limits.filter[name]?.[operator] ?? "") });
    label.append(text, input);
    bounds.append(label);
  }
  return bounds;
}

function chosenOf(name) {
  const chosen = limits.filter[name]?.in;
  return Array.isArray(chosen) ? chosen : [];
}
