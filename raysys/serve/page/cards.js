// Cards of items, their photos, and links that open a query in this page.

import { needsToken, photoUrlOf } from "./api.js";
import { urlOf } from "./queries.js";
import { priceText, setText } from "./text.js";

const queries = new WeakMap(); // link -> query

const byId = (id) => document.getElementById(id);

// The query of a link that was clicked; undefined for other targets.
export function queryOfLink(target) {
  return queries.get(target.closest("a"));
}

// `limits` stay active when a link is opened, and are a part of its address.
export function linkTo(link, query, limits) {
  queries.set(link, query);
  link.dataset.query = query.kind;
  link.href = urlOf({ query, ...limits });
}

export function relink(limits) {
  for (const link of document.querySelectorAll("a[data-query]")) {
    link.href = urlOf({ query: queries.get(link), ...limits });
  }
}

// A list item. `maxScore` is the score of a full meter; without one, the card has no similarity.
export function cardOf(item, limits, { maxScore, isShared = false } = {}) {
  const fragment = byId("card").content.cloneNode(true);
  const card = fragment.querySelector(".card");
  const price = priceText(item.attributes?.price);
  const label = [item.title, price];
  linkTo(card, { kind: "item", item }, limits);
  card.dataset.itemId = item.item_id;
  setPhoto(card.querySelector("img"), item.image_url).alt = item.title;
  setText(card.querySelector(".title"), item.title);
  card.querySelector(".price").textContent = price;
  if (maxScore === undefined) {
    card.querySelector(price ? ".similarity" : ".tag").remove();
  } else {
    const score = item.score.toFixed(2);
    const percent = 100 * Math.min(1, Math.max(0, item.score / maxScore));
    card.querySelector(".score").textContent = score;
    card.querySelector(".meter > span").style.width = `${percent}%`;
    label.push(`similarity ${score}`);
  }
  card.querySelector(".shared").hidden = !isShared;
  if (isShared) label.push("in both lists");
  card.setAttribute("aria-label", label.filter(Boolean).join(", "));
  return fragment;
}

export function renderSkeletons(list, number) {
  const skeletons = Array.from({ length: number }, () => byId("skeleton").content.cloneNode(true));
  list.replaceChildren(...skeletons);
}

export function setPhoto(img, url) {
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
