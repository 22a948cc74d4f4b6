// How values of the service are written. They are inserted as text or attributes, never as markup.

const yen = new Intl.NumberFormat("en", { style: "currency", currency: "JPY" });
const integer = new Intl.NumberFormat("en");

export function setText(element, text) {
  element.textContent = text;
  // Without `lang`, Han characters may be drawn in their Chinese form.
  element.lang = /[\u3040-\u30ff\u3400-\u9fff]/.test(text) ? "ja" : "";
}

export function priceText(price) {
  return price === undefined || price === null || price === "" || isNaN(price) ? "" : yen.format(price);
}

export function numberText(number) {
  return integer.format(number);
}

export function valueText(value) {
  if (typeof value === "boolean") return value ? "Yes" : "No";
  return String(value).replaceAll("/", " › ");
}

export function labelOf(name) {
  const label = name.replaceAll("_", " ");
  return label.charAt(0).toUpperCase() + label.slice(1);
}
