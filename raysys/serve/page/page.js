// The search page: one query at a time (an item, a text or a photo) and its neighbours. The start page
// shows the item that the service proposes, and texts to try.
//
// Every query is a visit that belongs to an entry of the browser's history. A visit keeps its
// response, so that Back renders without a request and the scroll position stays valid. Values
// from the service are inserted as text or attributes, never as markup.

const NUM_NEIGHBOURS = 12;
const NUM_START_ITEMS = 24; // fills complete rows of 2, 3, 4, 6 and 8
const NUM_ATTRIBUTES = 6;

const TOKEN_KEY = "raysys-token"; // of sessionStorage

const yen = new Intl.NumberFormat("en", { style: "currency", currency: "JPY" });
const integer = new Intl.NumberFormat("en");
// history.state.visit -> { query, isStart, response, durationMs }; a start page has no query before its response
const visits = new Map();
let examples; // the texts and the item of the start page
let searchAbort = new AbortController();
let startItemsAbort = new AbortController();
let tokenAnswer; // the pending answer of the token dialog
let wasTokenRejected = false;
const photoUrls = new Map(); // image_url -> promise of a blob URL, while the service requires a token
let retryTimer; // counts down to the next retry

const byId = (id) => document.getElementById(id);

addListeners();
resumeVisit();
loadStartItems();

// ---- Queries and history

function addListeners() {
  addEventListener("popstate", resumeVisit);
  byId("home").addEventListener("click", (event) => onPlainClick(event, () => openQuery(null)));
  byId("show-others").addEventListener("click", loadStartItems);
  byId("dismiss").addEventListener("click", hideError);
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("text").value.trim();
    if (text) openQuery({ kind: "text", text });
  });
  addPhotoListeners();
}

function openQuery(query) {
  const key = newVisitKey();
  visits.set(key, { query, isStart: !query });
  history.pushState({ visit: key }, "", urlOf(query));
  scrollTo(0, 0);
  showVisit(visits.get(key));
  if (query) byId("query-title").focus({ preventScroll: true });
}

function resumeVisit() {
  let visit = visits.get(history.state?.visit);
  if (!visit) {
    const query = queryOf(new URLSearchParams(location.search));
    visit = { query, isStart: !query };
    const key = newVisitKey();
    visits.set(key, visit);
    history.replaceState({ visit: key }, "");
  }
  showVisit(visit);
}

function newVisitKey() {
  return `${performance.timeOrigin}:${visits.size}`; // different from every key of an earlier page load
}

async function showVisit(visit) {
  searchAbort.abort(); // a late response to an earlier query must not replace this one
  const { signal } = (searchAbort = new AbortController());
  hideError();
  renderQuery(visit);
  if (visit.response) return renderResponse(visit);
  renderSkeletons(byId("shelf"), NUM_NEIGHBOURS);
  renderEmpty("");
  try {
    if (visit.isStart) await loadExamples(visit, signal);
    if (!visit.query) return; // no item of the index has a neighbour
    const startedMs = performance.now();
    visit.response = await fetchJson(...requestFor(visit.query), signal);
    visit.durationMs = performance.now() - startedMs;
    if (!signal.aborted) renderResponse(visit);
  } catch (error) {
    if (signal.aborted) return;
    renderFailure(visit);
    showError(error, () => showVisit(visit));
  }
}

function urlOf(query) {
  if (query?.kind === "item") return `/?${new URLSearchParams({ item: query.item.item_id })}`;
  if (query?.kind === "text") return `/?${new URLSearchParams({ q: query.text })}`;
  return "/"; // a photo has no URL: it exists only in this tab
}

function queryOf(parameters) {
  if (parameters.get("item")) return { kind: "item", item: { item_id: parameters.get("item") } };
  if (parameters.get("q")?.trim()) return { kind: "text", text: parameters.get("q").trim() };
  return null;
}

// ---- Requests

function requestFor(query) {
  if (query.kind === "item") {
    return [`${similarUrl(query.item.item_id)}?k=${NUM_NEIGHBOURS}`, {}];
  }
  if (query.kind === "text") {
    const body = JSON.stringify({ text: query.text, k: NUM_NEIGHBOURS });
    return ["/v1/search", { method: "POST", headers: { "Content-Type": "application/json" }, body }];
  }
  const body = new FormData(); // the unchanged file: preprocessing happens only in the service
  body.append("image", query.file);
  body.append("k", NUM_NEIGHBOURS);
  return ["/v1/search", { method: "POST", body }];
}

function similarUrl(itemId) {
  const slash = itemId === "." || itemId === ".." ? "%2F" : "/"; // browsers remove these two path segments
  return `/v1/items/${encodeURIComponent(itemId)}${slash}similar`;
}

async function fetchJson(url, options, signal) {
  let response;
  try {
    response = await fetchWithToken(url, { ...options, signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Error("The service cannot be reached. Check the connection and try again.");
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  const message = body?.error?.message ?? `The service returned status ${response.status} without a message.`;
  throw Object.assign(new Error(message), { retryAfterS: Number(response.headers.get("Retry-After")) || 0 });
}

// The token lives as long as this tab. It is sent to the service only, never as a part of a URL.
async function fetchWithToken(url, options = {}) {
  const token = sessionStorage.getItem(TOKEN_KEY);
  const headers = token ? { ...options.headers, Authorization: `Bearer ${token}` } : options.headers;
  const response = await fetch(url, { ...options, headers });
  if (response.status !== 401 || options.signal?.aborted) return response;
  if (token) {
    // It was not accepted. Without one, the service may still answer.
    if (sessionStorage.getItem(TOKEN_KEY) === token) sessionStorage.removeItem(TOKEN_KEY);
    wasTokenRejected = true;
    return fetchWithToken(url, options);
  }
  // Requests that fail together wait for one answer.
  tokenAnswer ??= askForToken().finally(() => (tokenAnswer = undefined));
  return (await tokenAnswer) ? fetchWithToken(url, options) : response;
}

// Whether the user gave a token, which is then stored.
async function askForToken() {
  if (sessionStorage.getItem(TOKEN_KEY)) return true; // given since the request was sent
  const dialog = byId("token-dialog");
  byId("token-rejected").hidden = !wasTokenRejected;
  byId("token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  const token = byId("token").value.trim();
  byId("token").value = "";
  if (dialog.returnValue !== "send" || !token) return false;
  sessionStorage.setItem(TOKEN_KEY, token);
  return true;
}

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
    byId("items").textContent = integer.format(ready.num_items);
    byId("starts").replaceChildren(...items.map((item) => cardOf(item)));
  } catch (error) {
    if (signal.aborted) return;
    byId("starts").replaceChildren();
    if (byId("banner").hidden) showError(error, loadStartItems); // keep the error of a failed search
  }
}

async function loadExamples(visit, signal) {
  examples ??= await fetchJson("/v1/examples", {}, signal);
  if (signal.aborted) return;
  visit.query = examples.item && { kind: "item", item: examples.item };
  renderExamples(examples.texts);
  renderQuery(visit);
}

// ---- Rendering

function renderQuery({ query, isStart }) {
  byId("hero").hidden = !isStart;
  byId("result").hidden = !query && examples?.item === null; // until the examples arrive, its place is kept
  byId("text").value = query?.kind === "text" ? query.text : "";
  byId("result").dataset.kind = query?.kind ?? "item";
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
  const rows = known.slice(0, NUM_ATTRIBUTES).map(([name, value]) => [labelOf(name), valueText(value)]);
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

function renderResponse({ query, isStart, response, durationMs }) {
  if (query.kind === "item" && response.query) {
    query.item = response.query;
    renderItem(response.query, isStart);
  }
  // Cosines between text and photos are near 0.1, so the meter of a text query is relative to the best.
  const isText = query.kind === "text";
  const maxScore = isText ? Math.max(...response.items.map((item) => item.score)) : 1;
  byId("shelf").replaceChildren(...response.items.map((item) => cardOf(item, maxScore)));
  renderEmpty(response.items.length ? "" : "No similar looks found");
  const title = byId("query-title").textContent;
  byId("status").textContent = `${response.items.length || "No"} similar looks for ${title}`;
  byId("search-time").textContent = `${integer.format(Math.max(1, Math.round(durationMs)))} ms`;
  byId("arm").textContent = response.arm ?? "–";
  renderSpace(response);
}

function renderFailure({ query }) {
  // An item that was opened by its URL, or a start page without its examples: there is nothing to show.
  const isUnknown = !query || (query.kind === "item" && !query.item.title);
  byId("result").hidden = isUnknown;
  byId("hero").hidden = !isUnknown;
  byId("shelf").replaceChildren();
  renderEmpty("The results could not be loaded");
}

function renderEmpty(reason) {
  byId("empty").hidden = !reason;
  byId("empty-reason").textContent = reason;
}

// Without an encoder the service answers queries by item only.
function renderEncoder(hasEncoder) {
  for (const element of document.querySelectorAll("[data-encoder]")) element.hidden = !hasEncoder;
  byId("items-only").hidden = hasEncoder;
}

function renderSpace({ space_id, index_version }) {
  byId("space").textContent = space_id.slice(0, 12);
  byId("space").title = space_id;
  byId("index").textContent = index_version;
  byId("index").title = index_version;
}

function renderExamples(texts) {
  const links = texts.map((text) => {
    const entry = document.createElement("li");
    const link = document.createElement("a");
    const query = { kind: "text", text };
    link.className = "secondary";
    link.href = urlOf(query);
    setText(link, text);
    link.addEventListener("click", (event) => onPlainClick(event, () => openQuery(query)));
    entry.append(link);
    return entry;
  });
  byId("examples").replaceChildren(...links);
  byId("examples").hidden = !texts.length;
}

function renderSkeletons(list, number) {
  const skeletons = Array.from({ length: number }, () => byId("skeleton").content.cloneNode(true));
  list.replaceChildren(...skeletons);
}

function cardOf(item, maxScore) {
  const fragment = byId("card").content.cloneNode(true);
  const card = fragment.querySelector(".card");
  const price = priceText(item.attributes?.price);
  card.href = urlOf({ kind: "item", item });
  card.dataset.itemId = item.item_id;
  setPhoto(card.querySelector("img"), item.image_url).alt = item.title;
  setText(card.querySelector(".title"), item.title);
  card.querySelector(".price").textContent = price;
  const label = [item.title, price];
  if (maxScore === undefined) {
    card.querySelector(price ? ".similarity" : ".tag").remove();
  } else {
    const score = item.score.toFixed(2);
    const percent = 100 * Math.min(1, Math.max(0, item.score / maxScore));
    card.querySelector(".score").textContent = score;
    card.querySelector(".meter > span").style.width = `${percent}%`;
    label.push(`similarity ${score}`);
  }
  card.setAttribute("aria-label", label.filter(Boolean).join(", "));
  card.addEventListener("click", (event) => onPlainClick(event, () => openQuery({ kind: "item", item })));
  return fragment;
}

function setText(element, text) {
  element.textContent = text;
  // Without `lang`, Han characters may be drawn in their Chinese form.
  element.lang = /[\u3040-\u30ff\u3400-\u9fff]/.test(text) ? "ja" : "";
}

function setPhoto(img, url) {
  const setBroken = (isBroken) => img.parentElement?.classList.toggle("broken", isBroken);
  img.draggable = false;
  img.onerror = () => setBroken(true);
  img.onload = () => setBroken(false);
  img.dataset.url = url ?? "";
  if (!url) img.removeAttribute("src");
  else if (needsToken(url)) {
    img.removeAttribute("src"); // the photo of an earlier query
    photoUrlOf(url).then((blobUrl) => img.dataset.url === url && (img.src = blobUrl), img.onerror);
  } else img.src = url;
  return img;
}

// An <img> sends no Authorization header, so the photos of a service with tokens are fetched.
function needsToken(url) {
  const { protocol, origin } = new URL(url, location);
  return sessionStorage.getItem(TOKEN_KEY) !== null && protocol !== "blob:" && origin === location.origin;
}

function photoUrlOf(url) {
  if (!photoUrls.has(url)) photoUrls.set(url, fetchPhoto(url));
  return photoUrls.get(url);
}

async function fetchPhoto(url) {
  const response = await fetchWithToken(url);
  if (!response.ok) throw new Error(`photo: status ${response.status}`);
  return URL.createObjectURL(await response.blob()); // not revoked: the cards of other visits show it, too
}

function priceText(price) {
  return price === undefined || price === null || price === "" || isNaN(price) ? "" : yen.format(price);
}

function valueText(value) {
  return String(value).replaceAll("/", " › ");
}

function labelOf(name) {
  const label = name.replaceAll("_", " ");
  return label.charAt(0).toUpperCase() + label.slice(1);
}

function onPlainClick(event, action) {
  if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  action();
}

// ---- Photos: file dialog, drop and paste

function addPhotoListeners() {
  for (const button of document.querySelectorAll("[data-upload]")) {
    button.addEventListener("click", () => byId("file").click());
  }
  byId("file").addEventListener("change", () => {
    openPhoto(byId("file").files[0]);
    byId("file").value = ""; // allows the same file to be chosen again
  });
  addEventListener("paste", ({ clipboardData, target }) => {
    const isTyping = target === byId("text") && clipboardData.types.includes("text/plain");
    if (!isTyping) openPhoto(clipboardData.files[0]);
  });
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    byId("drop").hidden = byId("search").hidden;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) byId("drop").hidden = true; // the pointer left the window
  });
  addEventListener("drop", (event) => {
    byId("drop").hidden = true;
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    openPhoto(event.dataTransfer.files[0]);
  });
}

function openPhoto(file) {
  if (!file || byId("search").hidden) return;
  if (!file.type.startsWith("image/")) {
    showError(new Error(`“${file.name}” is not a photo. Choose a JPEG, PNG or WebP file.`));
    return;
  }
  openQuery({ kind: "photo", file, previewUrl: URL.createObjectURL(file) }); // not revoked: Back needs it
}

// ---- Errors

function showError({ message, retryAfterS = 0 }, retry) {
  hideError();
  byId("error-message").textContent = message;
  byId("banner").hidden = false;
  byId("retry").hidden = !retry;
  byId("retry").onclick = () => {
    hideError();
    retry();
  };
  countDown(Math.ceil(retryAfterS));
}

function countDown(remainingS) {
  byId("retry").disabled = remainingS > 0;
  byId("retry").textContent = remainingS > 0 ? `Try again in ${remainingS} s` : "Try again";
  if (remainingS > 0) retryTimer = setTimeout(countDown, 1000, remainingS - 1);
}

function hideError() {
  clearTimeout(retryTimer);
  byId("banner").hidden = true;
}
