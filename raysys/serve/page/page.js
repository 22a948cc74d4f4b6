// The page of the shelf: one query at a time (an item, words or a photo) and its neighbours.
//
// Every query is a visit, tied to an entry of the browser's history. A visit keeps its answer, so
// Back paints at once and the scroll position still fits. What the service sent reaches the
// document as text or as an attribute, never as markup.

const NUM_NEIGHBOURS = 12;
const NUM_STARTS = 24; // fills whole rows of 2, 3, 4, 6 and 8
const NUM_COLLAGE = 5;
const NUM_ATTRIBUTES = 6;

const yen = new Intl.NumberFormat("en", { style: "currency", currency: "JPY" });
const count = new Intl.NumberFormat("en");
const visits = new Map(); // history.state.visit -> { query, answer, tookMs }
let searching = new AbortController();
let starting = new AbortController();
let waiting; // the timer that counts down to the next try

const at = (id) => document.getElementById(id);

listen();
resume();
loadStarts();

// ---- From one query to the next

function listen() {
  addEventListener("popstate", resume);
  at("home").addEventListener("click", (event) => onPlainClick(event, () => open(null)));
  at("others").addEventListener("click", loadStarts);
  at("dismiss").addEventListener("click", hush);
  at("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = at("words").value.trim();
    if (text) open({ kind: "words", text });
  });
  listenForPhotos();
}

function open(query) {
  const key = `${performance.timeOrigin}:${visits.size}`; // unlike any key of an earlier load
  visits.set(key, { query });
  history.pushState({ visit: key }, "", addressOf(query));
  scrollTo(0, 0);
  show(visits.get(key));
  if (query) at("query-title").focus({ preventScroll: true });
}

function resume() {
  let visit = visits.get(history.state?.visit);
  if (!visit) {
    visit = { query: queryOf(new URLSearchParams(location.search)) };
    const key = `${performance.timeOrigin}:${visits.size}`;
    visits.set(key, visit);
    history.replaceState({ visit: key }, "");
  }
  show(visit);
}

async function show(visit) {
  searching.abort(); // an answer to an older question must not paint over this one
  const { signal } = (searching = new AbortController());
  hush();
  paintQuery(visit.query);
  if (!visit.query) return;
  if (visit.answer) return paintAnswer(visit);
  paintSkeletons(at("shelf"), NUM_NEIGHBOURS);
  paintEmpty("");
  try {
    const startedMs = performance.now();
    visit.answer = await ask(...requestFor(visit.query), signal);
    visit.tookMs = performance.now() - startedMs;
    if (!signal.aborted) paintAnswer(visit);
  } catch (error) {
    if (signal.aborted) return;
    paintFailure(visit.query);
    complain(error, () => show(visit));
  }
}

function addressOf(query) {
  if (query?.kind === "item") return `/?${new URLSearchParams({ item: query.item.item_id })}`;
  if (query?.kind === "words") return `/?${new URLSearchParams({ q: query.text })}`;
  return "/"; // a photo has no address: it lives as long as the tab
}

function queryOf(parameters) {
  if (parameters.get("item")) return { kind: "item", item: { item_id: parameters.get("item") } };
  if (parameters.get("q")?.trim()) return { kind: "words", text: parameters.get("q").trim() };
  return null;
}

// ---- Asking the service

function requestFor(query) {
  if (query.kind === "item") {
    return [`/v1/items/${encodeURIComponent(query.item.item_id)}/similar?k=${NUM_NEIGHBOURS}`, {}];
  }
  if (query.kind === "words") {
    const body = JSON.stringify({ text: query.text, k: NUM_NEIGHBOURS });
    return ["/v1/search", { method: "POST", headers: { "Content-Type": "application/json" }, body }];
  }
  const body = new FormData(); // the file as it is: the service has the only preprocessing
  body.append("image", query.file);
  body.append("k", NUM_NEIGHBOURS);
  return ["/v1/search", { method: "POST", body }];
}

async function ask(url, options, signal) {
  let response;
  try {
    response = await fetch(url, { ...options, signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Error("The service could not be reached. Check the connection and try again.");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  const reason = answer?.error?.message ?? `The service answered ${response.status} without a reason.`;
  throw Object.assign(new Error(reason), { waitS: Number(response.headers.get("Retry-After")) || 0 });
}

async function loadStarts() {
  starting.abort();
  const { signal } = (starting = new AbortController());
  const seed = Math.floor(Math.random() * 1_000_000);
  paintSkeletons(at("starts"), NUM_STARTS);
  try {
    const [ready, { items }] = await Promise.all([
      ask("/readyz", {}, signal),
      ask(`/v1/items?limit=${NUM_STARTS}&seed=${seed}`, {}, signal),
    ]);
    paintSpace(ready);
    at("items").textContent = count.format(ready.num_items);
    at("starts").replaceChildren(...items.map((item) => cardOf(item)));
    if (!at("collage").childElementCount) paintCollage(items.slice(0, NUM_COLLAGE));
  } catch (error) {
    if (signal.aborted) return;
    at("starts").replaceChildren();
    if (at("banner").hidden) complain(error, loadStarts); // a failed search has the first word
  }
}

// ---- Painting

function paintQuery(query) {
  at("hero").hidden = Boolean(query);
  at("result").hidden = !query;
  at("words").value = query?.kind === "words" ? query.text : "";
  document.title = "Similar looks";
  if (!query) return;
  at("result").dataset.kind = query.kind;
  if (query.kind === "item") return paintItem(query.item);
  const isPhoto = query.kind === "photo";
  at("query-kind").textContent = isPhoto ? "Your photo" : "Your words";
  paintFacts(isPhoto ? query.file.name : query.text, {});
  paintQueryPhoto(isPhoto ? query.previewUrl : null, "The photo you are searching with");
}

function paintItem({ item_id, title, attributes, image_url }) {
  at("query-kind").textContent = "Looks like";
  paintFacts(title ?? "", attributes ?? {}, item_id);
  paintQueryPhoto(image_url, title ?? "");
}

function paintFacts(title, attributes, itemId) {
  const { price, seller, ...others } = attributes;
  if (title) document.title = `${title} · Similar looks`;
  setTitle(at("query-title"), title);
  at("query-price").textContent = priceText(price);
  setTitle(at("query-seller"), seller ? `Sold by ${seller}` : "");
  const known = Object.entries(others).filter(([, value]) => value !== null && value !== "");
  const rows = known.slice(0, NUM_ATTRIBUTES).map(([name, value]) => [wordsOf(name), valueText(value)]);
  if (itemId) rows.push(["Item", itemId]);
  at("query-attributes").replaceChildren(...rows.map(rowOf));
  at("query-attributes").lastElementChild?.classList.toggle("key", Boolean(itemId));
}

function rowOf([name, value]) {
  const row = document.createElement("div");
  const term = document.createElement("dt");
  const detail = document.createElement("dd");
  term.textContent = name;
  setTitle(detail, value);
  row.append(term, detail);
  return row;
}

function paintQueryPhoto(url, alt) {
  const [backdrop, subject] = at("query-photo").children;
  for (const img of [backdrop, subject]) setPhoto(img, url);
  subject.alt = alt;
}

function paintAnswer({ query, answer, tookMs }) {
  if (query.kind === "item" && answer.query) {
    query.item = answer.query;
    paintItem(answer.query);
  }
  // Words and photos meet at cosines near 0.1: against 1 each of their bars would look empty.
  const full = query.kind === "words" ? Math.max(...answer.items.map((item) => item.score)) : 1;
  at("shelf").replaceChildren(...answer.items.map((item) => cardOf(item, full)));
  paintEmpty(answer.items.length ? "" : "No similar looks yet");
  const subject = at("query-title").textContent;
  at("status").textContent = `${answer.items.length || "No"} similar looks for ${subject}`;
  at("took").textContent = `${count.format(Math.max(1, Math.round(tookMs)))} ms`;
  at("arm").textContent = answer.arm ?? "–";
  paintSpace(answer);
}

function paintFailure(query) {
  const isUnknown = query.kind === "item" && !query.item.title; // an address with nothing to show
  at("result").hidden = isUnknown;
  at("hero").hidden = !isUnknown;
  at("shelf").replaceChildren();
  paintEmpty("The looks did not arrive");
}

function paintEmpty(reason) {
  at("empty").hidden = !reason;
  at("empty-reason").textContent = reason;
}

function paintSpace({ space_id, index_version }) {
  at("space").textContent = space_id.slice(0, 12);
  at("space").title = space_id;
  at("index").textContent = index_version;
  at("index").title = index_version;
}

function paintCollage(items) {
  const photos = items.map((item) => {
    const photo = document.createElement("li");
    photo.className = "photo";
    photo.append(setPhoto(new Image(), item.image_url));
    return photo;
  });
  at("collage").replaceChildren(...photos);
}

function paintSkeletons(list, number) {
  const skeletons = Array.from({ length: number }, () => at("skeleton").content.cloneNode(true));
  list.replaceChildren(...skeletons);
}

function cardOf(item, full) {
  const fragment = at("card").content.cloneNode(true);
  const card = fragment.querySelector(".card");
  const price = priceText(item.attributes?.price);
  card.href = addressOf({ kind: "item", item });
  card.dataset.itemId = item.item_id;
  setPhoto(card.querySelector("img"), item.image_url).alt = item.title;
  setTitle(card.querySelector(".title"), item.title);
  card.querySelector(".price").textContent = price;
  const words = [item.title, price];
  if (full === undefined) {
    card.querySelector(price ? ".likeness" : ".tag").remove();
  } else {
    const score = item.score.toFixed(2);
    card.querySelector(".score").textContent = score;
    card.querySelector(".meter > span").style.width = `${100 * Math.min(1, Math.max(0, item.score / full))}%`;
    words.push(`similarity ${score}`);
  }
  card.setAttribute("aria-label", words.filter(Boolean).join(", "));
  card.addEventListener("click", (event) => onPlainClick(event, () => open({ kind: "item", item })));
  return fragment;
}

function setTitle(element, title) {
  element.textContent = title;
  element.lang = /[\u3040-\u30ff\u3400-\u9fff]/.test(title) ? "ja" : ""; // Han has other shapes elsewhere
}

function setPhoto(img, url) {
  const setBroken = (isBroken) => img.parentElement?.classList.toggle("broken", isBroken);
  img.draggable = false;
  img.onerror = () => setBroken(true);
  img.onload = () => setBroken(false);
  if (url) img.src = url;
  else img.removeAttribute("src");
  return img;
}

function priceText(price) {
  return price === undefined || price === null || price === "" || isNaN(price) ? "" : yen.format(price);
}

function valueText(value) {
  return String(value).replaceAll("/", " › ");
}

function wordsOf(name) {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function onPlainClick(event, act) {
  if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  act();
}

// ---- Photos from the camera button, a drop or the clipboard

function listenForPhotos() {
  for (const button of document.querySelectorAll("[data-upload]")) {
    button.addEventListener("click", () => at("file").click());
  }
  at("file").addEventListener("change", () => {
    openPhoto(at("file").files[0]);
    at("file").value = ""; // the same file may be chosen twice
  });
  addEventListener("paste", ({ clipboardData, target }) => {
    const isTyping = target === at("words") && clipboardData.types.includes("text/plain");
    if (!isTyping) openPhoto(clipboardData.files[0]);
  });
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    at("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) at("drop").hidden = true; // the pointer left the window
  });
  addEventListener("drop", (event) => {
    at("drop").hidden = true;
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    openPhoto(event.dataTransfer.files[0]);
  });
}

function openPhoto(file) {
  if (!file) return;
  if (!file.type.startsWith("image/")) {
    complain(new Error(`“${file.name}” is not a photo. Choose a JPEG, PNG or WebP file.`));
    return;
  }
  open({ kind: "photo", file, previewUrl: URL.createObjectURL(file) }); // not revoked: Back shows it again
}

// ---- Saying what went wrong

function complain({ message, waitS = 0 }, again) {
  hush();
  at("complaint").textContent = message;
  at("banner").hidden = false;
  at("retry").hidden = !again;
  at("retry").onclick = () => {
    hush();
    again();
  };
  countDown(Math.ceil(waitS));
}

function countDown(leftS) {
  at("retry").disabled = leftS > 0;
  at("retry").textContent = leftS > 0 ? `Try again in ${leftS} s` : "Try again";
  if (leftS > 0) waiting = setTimeout(countDown, 1000, leftS - 1);
}

function hush() {
  clearTimeout(waiting);
  at("banner").hidden = true;
}
