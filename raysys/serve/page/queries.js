// A view is a query and how its results are limited:
//   { query: {kind: "item", item} | {kind: "text", text} | {kind: "photo", file, previewUrl} | null,
//     filter: as in the API, maxPer: as in the API, isCompared }
// A view has a URL and a request. Only the photo of a query is in neither: it exists only in this tab.

export const NUM_NEIGHBOURS = 12;
export const NO_LIMITS = Object.freeze({ filter: {}, maxPer: {}, isCompared: false });

export function urlOf({ query, filter, maxPer, isCompared }) {
  const parameters = new URLSearchParams();
  if (query?.kind === "item") parameters.set("item", query.item.item_id);
  if (query?.kind === "text") parameters.set("q", query.text);
  if (hasKeys(filter)) parameters.set("filter", JSON.stringify(filter));
  if (hasKeys(maxPer)) parameters.set("max_per", JSON.stringify(maxPer));
  if (isCompared) parameters.set("compare", "1");
  return parameters.size ? `/?${parameters}` : "/";
}

// The view of a URL. Throws for a filter that is not a JSON object.
export function viewOf(parameters) {
  return {
    query: queryOf(parameters),
    filter: jsonOf(parameters, "filter"),
    maxPer: jsonOf(parameters, "max_per"),
    isCompared: parameters.get("compare") === "1",
  };
}

export function queryOf(parameters) {
  if (parameters.get("item")) return { kind: "item", item: { item_id: parameters.get("item") } };
  if (parameters.get("q")?.trim()) return { kind: "text", text: parameters.get("q").trim() };
  return null;
}

export function isLimited({ filter, maxPer }) {
  return hasKeys(filter) || hasKeys(maxPer);
}

// The URL and the options of the search for a view.
export function requestFor({ query, filter, maxPer }) {
  const limits = {
    ...(hasKeys(filter) && { filter: JSON.stringify(filter) }),
    ...(hasKeys(maxPer) && { max_per: JSON.stringify(maxPer) }),
  };
  if (query.kind === "item") {
    return [`${similarUrl(query.item.item_id)}?${new URLSearchParams({ k: NUM_NEIGHBOURS, ...limits })}`, {}];
  }
  if (query.kind === "text") {
    const body = { text: query.text, k: NUM_NEIGHBOURS };
    if (hasKeys(filter)) body.filter = filter;
    if (hasKeys(maxPer)) body.max_per = maxPer;
    const headers = { "Content-Type": "application/json" };
    return ["/v1/search", { method: "POST", headers, body: JSON.stringify(body) }];
  }
  const body = new FormData(); // the unchanged file: preprocessing happens only in the service
  body.append("image", query.file);
  body.append("k", NUM_NEIGHBOURS);
  for (const [name, value] of Object.entries(limits)) body.append(name, value);
  return ["/v1/search", { method: "POST", body }];
}

function similarUrl(itemId) {
  const slash = itemId === "." || itemId === ".." ? "%2F" : "/"; // browsers remove these two path segments
  return `/v1/items/${encodeURIComponent(itemId)}${slash}similar`;
}

function jsonOf(parameters, name) {
  const text = parameters.get(name);
  if (!text) return {};
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    value = null;
  }
  if (typeof value === "object" && value && !Array.isArray(value)) return value;
  throw new Error(`The address has an invalid ${name}, which was left out.`);
}

function hasKeys(object) {
  return Object.keys(object).length > 0;
}
