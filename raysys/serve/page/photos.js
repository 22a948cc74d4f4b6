// Photos as queries: file dialog, camera of a phone, drop and paste.

import { showError } from "./errors.js";

const byId = (id) => document.getElementById(id);

// `openQuery` is called with the query of each photo that the user gives.
export function addPhotoListeners(openQuery) {
  const open = (file) => openPhoto(file, openQuery);
  for (const id of ["file", "camera-file"]) {
    for (const button of document.querySelectorAll(`[data-opens="${id}"]`)) {
      button.addEventListener("click", () => byId(id).click());
    }
    byId(id).addEventListener("change", () => {
      open(byId(id).files[0]);
      byId(id).value = ""; // allows the same file to be chosen again
    });
  }
  addEventListener("paste", ({ clipboardData, target }) => {
    const isTyping = target.matches?.("input") && clipboardData.types.includes("text/plain");
    if (!isTyping) open(clipboardData.files[0]);
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
    open(event.dataTransfer.files[0]);
  });
}

function openPhoto(file, openQuery) {
  if (!file || byId("search").hidden) return; // without an encoder
  if (!file.type.startsWith("image/")) {
    showError(new Error(`“${file.name}” is not a photo. Choose a JPEG, PNG or WebP file.`));
    return;
  }
  openQuery({ kind: "photo", file, previewUrl: URL.createObjectURL(file) }); // not revoked: Back needs it
}
