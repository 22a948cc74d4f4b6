// Rendering of a visit: its query with all attributes, and its results, as one shelf or two side by side.

import { cardOf, linkTo, renderSkeletons, setPhoto } from "./cards.js";
import { summaryOf } from "./filters.js";
import { isLimited, NUM_NEIGHBOURS } from "./queries.js";
import { labelOf, numberText, priceText, setText, valueText } from "./text.js";

const byId = (id) => document.getElementById(id);

export function renderQuery({ query, isStart }) {
  byId("hero").hidden = !isStart;
  byId("result").hidden = false; // until a query is known, its place is kept
  byId("text").value = query?.kind === "text" ? query.text : "";
  byId("result").dataset.kind = query?.kind ?? "item";
  byId("copy-link").hidden = !navigator.clipboard || !query || query.kind === "photo";
  renderDetails("", {});
  renderQueryPhoto(null, "");
  byId("query-kind").textContent = isStart ? "For example" : "Similar to";
  document.title = "Similar looks";
  if (!query) return;
  if (query.kind === "item") return renderItem(query.item, isStart);
  const isPhoto = query.kind === "photo";
  byId("query-kind").textContent = isPhoto ? "Your photo" : "Your description";
  renderDetails(isPhoto ? query.file.name : query.text, {});
  renderQueryPhoto(isPhoto ? query.previewUrl : null, "Your photo");
}

function renderItem({ item_id, title, attributes, image_url }, isStart) {
  renderDetails(title ?? "", attributes ?? {}, item_id);
  renderQueryPhoto(image_url, title ?? "");
  if (isStart) document.title = "Similar looks";
}

function renderDetails(title, attributes, itemId) {
  const { price, seller, ...others } = attributes;
  if (title) document.title = `${title} · Similar looks`;
  setText(byId("query-title"), title);
  byId("query-price").textContent = priceText(price);
  setText(byId("query-seller"), seller ? `Sold by ${seller}` : "");
  const known = Object.entries(others).filter(([, value]) => value !== null && value !== "");
  const rows = known.map(([name, value]) => [labelOf(name), valueText(value)]);
  if (itemId) rows.push(["Item", itemId]);
  byId("query-attributes").replaceChildren(...rows.map(rowOf));
  byId("query-attributes").lastElementChild?.classList.toggle("key", Boolean(itemId));
}

function rowOf([name, value]) {
  const row = document.createElement("div");
  const term = document.createElement("dt");
  const detail = document.createElement("dd");
  term.textContent = name;
  setText(detail, value);
  row.append(term, detail);
  return row;
}

function renderQueryPhoto(url, alt) {
  const [backdrop, subject] = byId("query-photo").children;
  for (const img of [backdrop, subject]) setPhoto(img, url);
  subject.alt = alt;
}

// The places of results that are not there yet.
export function renderPending(visit) {
  renderShelves(visit);
  renderSkeletons(byId("shelf"), NUM_NEIGHBOURS);
  renderSkeletons(byId("all-shelf"), visit.isCompared ? NUM_NEIGHBOURS : 0);
  byId("results").setAttribute("aria-busy", "true");
  renderEmpty("");
}

export function renderResponse(visit) {
  const { query, isStart, response, allResponse, durationMs } = visit;
  if (query.kind === "item" && response.query) {
    query.item = response.query;
    renderItem(response.query, isStart);
  }
  renderShelves(visit);
  byId("results").setAttribute("aria-busy", "false");
  const isText = query.kind === "text";
  const shared = sharedIds(response, allResponse);
  renderShelf(byId("shelf"), response.items, visit, isText, shared);
  renderShelf(byId("all-shelf"), allResponse?.items ?? [], visit, isText, shared);
  const isEmptied = !response.items.length && isLimited(visit);
  const reason = isEmptied ? "No product matches these filters" : "No similar looks found";
  renderEmpty(response.items.length ? "" : reason);
  byId("clear-empty").hidden = !isEmptied;
  byId("empty-hint").hidden = isEmptied;
  byId("status").textContent = announcement(visit, shared);
  byId("search-time").textContent = `${numberText(Math.max(1, Math.round(durationMs)))} ms`;
  byId("arm").textContent = response.arm ?? "–";
  renderSpace(response);
}

function announcement({ response, allResponse, filter, maxPer }, shared) {
  const limits = summaryOf({ filter, maxPer });
  const text = `${response.items.length || "No"} similar looks for ${byId("query-title").textContent}`;
  const compared = allResponse ? `, ${shared.size} of them also without limits` : "";
  return text + (limits ? ` (${limits})` : "") + compared;
}

function sharedIds(response, allResponse) {
  const ids = new Set(response.items.map((item) => item.item_id));
  return new Set((allResponse?.items ?? []).map((item) => item.item_id).filter((id) => ids.has(id)));
}

function renderShelf(list, items, limits, isText, shared) {
  // Cosines between text and photos are near 0.1, so the meter of a text query is relative to the best.
  const maxScore = isText ? Math.max(...items.map((item) => item.score)) : 1;
  const cards = items.map((item) => cardOf(item, limits, { maxScore, isShared: shared.has(item.item_id) }));
  list.replaceChildren(...cards);
}

function renderShelves(visit) {
  const isCompared = visit.isCompared && isLimited(visit);
  byId("shelves").classList.toggle("compared", isCompared);
  byId("all").hidden = !isCompared;
  byId("limited-heading").hidden = !isCompared;
}

export function renderFailure({ query }) {
  // An item that was opened by its URL, or a start page without its examples: there is nothing to show.
  const isUnknown = !query || (query.kind === "item" && !query.item.title);
  byId("result").hidden = isUnknown;
  byId("hero").hidden = !isUnknown;
  byId("shelf").replaceChildren();
  byId("all-shelf").replaceChildren();
  byId("results").setAttribute("aria-busy", "false");
  byId("clear-empty").hidden = true;
  byId("empty-hint").hidden = false;
  renderEmpty("The results could not be loaded");
}

function renderEmpty(reason) {
  byId("empty").hidden = !reason;
  byId("empty-reason").textContent = reason;
}

// Without an encoder the service answers queries by item only.
export function renderEncoder(hasEncoder) {
  for (const element of document.querySelectorAll("[data-encoder]")) element.hidden = !hasEncoder;
  byId("items-only").hidden = hasEncoder;
}

export function renderSpace({ space_id, index_version }) {
  byId("space").textContent = space_id.slice(0, 12);
  byId("space").title = space_id;
  byId("index").textContent = index_version;
  byId("index").title = index_version;
}

export function renderExamples(texts, limits) {
  const links = texts.map((text) => {
    const entry = document.createElement("li");
    const link = document.createElement("a");
    link.className = "secondary";
    linkTo(link, { kind: "text", text }, limits);
    setText(link, text);
    entry.append(link);
    return entry;
  });
  byId("examples").replaceChildren(...links);
  byId("examples").hidden = !texts.length;
}
