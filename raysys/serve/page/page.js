// The search page: one query at a time (an item, a text or a photo) and its neighbours. The start page
// shows the item that the service proposes, and texts to try.
//
// Every view is a visit that belongs to an entry of the browser's history. A visit keeps its response, so that
// Back renders without a request and the scroll position stays valid.

import { fetchJson } from "./api.js";
import { cardOf, queryOfLink, relink, renderSkeletons } from "./cards.js";
import { hasError, hideError, showError } from "./errors.js";
import { addFilterListeners, renderLimits, setAttributes } from "./filters.js";
import { addPhotoListeners } from "./photos.js";
import { isLimited, NO_LIMITS, queryOf, requestFor, urlOf, viewOf } from "./queries.js";
import {
  renderEncoder, renderExamples, renderFailure, renderPending, renderQuery, renderResponse, renderSpace,
} from "./results.js";
import { numberText } from "./text.js";

const NUM_START_ITEMS = 24; // fills complete rows of 2, 3, 4, 6 and 8

// history.state.visit -> a view with { isStart, response, allResponse, durationMs }; a start page has no
// query before its response
const visits = new Map();
let current; // the visit that is shown
let examples; // the texts and the item of the start page
let searchAbort = new AbortController();
let startItemsAbort = new AbortController();

const byId = (id) => document.getElementById(id);

addListeners();
resumeVisit();
loadStartItems();
loadAttributes();

function addListeners() {
  addEventListener("popstate", resumeVisit);
  document.addEventListener("click", onClick);
  document.addEventListener("keydown", onKey);
  byId("show-others").addEventListener("click", loadStartItems);
  byId("dismiss").addEventListener("click", hideError);
  byId("copy-link").addEventListener("click", copyLink);
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("text").value.trim();
    if (text) openQuery({ kind: "text", text });
  });
  addPhotoListeners(openQuery);
  addFilterListeners((limits) => openView({ ...current, ...limits, response: undefined, allResponse: undefined }));
}

function onClick(event) {
  if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const isHome = event.target.closest("#home");
  const query = queryOfLink(event.target);
  if (!isHome && !query) return;
  event.preventDefault();
  if (isHome) openStart();
  else openQuery(query);
}

function onKey(event) {
  // Enter selects a candidate of an input method; Safari reports it after the composition (code 229).
  const isComposing = event.isComposing || event.keyCode === 229;
  if (event.key === "Enter" && isComposing && event.target === byId("text")) event.preventDefault();
  const isTyping = event.target.matches("input:not([type=checkbox])") || byId("token-dialog").open;
  if (event.key === "/" && !isTyping && !event.metaKey && !event.ctrlKey && !event.altKey) {
    event.preventDefault();
    byId("text").select();
    byId("text").focus();
  }
}

// ---- Visits

function openStart() {
  openView({ query: null, isStart: true, ...NO_LIMITS });
  scrollTo(0, 0);
}

// The limits stay active.
function openQuery(query) {
  const { filter, maxPer, isCompared } = current;
  openView({ query, isStart: false, filter, maxPer, isCompared });
  scrollTo(0, 0);
  byId("query-title").focus({ preventScroll: true });
}

function openView(view) {
  const key = newVisitKey();
  visits.set(key, view);
  history.pushState({ visit: key }, "", urlOf(view.isStart ? { ...view, query: null } : view));
  showVisit(view);
}

function resumeVisit() {
  let visit = visits.get(history.state?.visit);
  let invalid;
  if (!visit) {
    const parameters = new URLSearchParams(location.search);
    try {
      visit = viewOf(parameters);
    } catch (error) {
      invalid = error;
      visit = { query: queryOf(parameters), ...NO_LIMITS };
    }
    visit.isStart = !visit.query;
    const key = newVisitKey();
    visits.set(key, visit);
    history.replaceState({ visit: key }, "");
  }
  showVisit(visit);
  if (invalid) showError(invalid);
}

function newVisitKey() {
  return `${performance.timeOrigin}:${visits.size}`; // different from every key of an earlier page load
}

async function showVisit(visit) {
  searchAbort.abort(); // a late response to an earlier query must not replace this one
  const { signal } = (searchAbort = new AbortController());
  current = visit;
  hideError();
  renderQuery(visit);
  renderLimits(visit);
  relink(visit);
  if (visit.response) return renderResponse(visit);
  renderPending(visit);
  try {
    if (visit.isStart) await loadExamples(visit, signal);
    if (!visit.query) return; // no item of the index has a neighbour
    await search(visit, signal);
    if (!signal.aborted) renderResponse(visit);
  } catch (error) {
    if (signal.aborted) return;
    renderFailure(visit);
    showError(error, () => showVisit(visit));
  }
}

async function search(visit, signal) {
  const startedMs = performance.now();
  const isCompared = visit.isCompared && isLimited(visit);
  const responses = await Promise.all([
    fetchJson(...requestFor(visit), signal),
    isCompared ? fetchJson(...requestFor({ ...visit, ...NO_LIMITS }), signal) : undefined,
  ]);
  [visit.response, visit.allResponse] = responses;
  visit.durationMs = performance.now() - startedMs;
}

async function loadExamples(visit, signal) {
  examples ??= await fetchJson("/v1/examples", {}, signal);
  if (signal.aborted) return;
  visit.query = examples.item && { kind: "item", item: examples.item };
  renderExamples(examples.texts, visit);
  renderQuery(visit);
  byId("result").hidden = !visit.query;
}

async function copyLink() {
  const { href } = new URL(urlOf(current), location);
  await navigator.clipboard.writeText(href).then(
    () => (byId("status").textContent = byId("copy-link").textContent = "Link copied"),
    () => showError(new Error(`The link could not be copied: ${href}`)),
  );
  setTimeout(() => (byId("copy-link").textContent = "Copy link"), 2000);
}

// ---- What is loaded once

async function loadStartItems() {
  startItemsAbort.abort();
  const { signal } = (startItemsAbort = new AbortController());
  const seed = Math.floor(Math.random() * 1_000_000);
  renderSkeletons(byId("starts"), NUM_START_ITEMS);
  try {
    const [ready, { items }] = await Promise.all([
      fetchJson("/readyz", {}, signal),
      fetchJson(`/v1/items?limit=${NUM_START_ITEMS}&seed=${seed}`, {}, signal),
    ]);
    renderSpace(ready);
    renderEncoder(ready.has_encoder);
    byId("items").textContent = numberText(ready.num_items);
    byId("starts").replaceChildren(...items.map((item) => cardOf(item, current)));
  } catch (error) {
    if (signal.aborted) return;
    byId("starts").replaceChildren();
    if (!hasError()) showError(error, loadStartItems); // keep the error of a failed search
  }
}

async function loadAttributes() {
  try {
    const { attributes } = await fetchJson("/v1/attributes", {}, new AbortController().signal);
    setAttributes(attributes);
  } catch (error) {
    if (!hasError()) showError(error, loadAttributes);
  }
}
