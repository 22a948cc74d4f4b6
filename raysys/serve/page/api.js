// Requests to the service, with the access token of this tab, and with the errors of the service.

const TOKEN_KEY = "raysys-token"; // of sessionStorage

let tokenAnswer; // the pending answer of the token dialog
let wasTokenRejected = false;
const photoUrls = new Map(); // image_url -> promise of a blob URL, while the service requires a token

const byId = (id) => document.getElementById(id);

export async function fetchJson(url, options, signal) {
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

// An <img> sends no Authorization header, so the photos of a service with tokens are fetched.
export function needsToken(url) {
  const { protocol, origin } = new URL(url, location);
  return sessionStorage.getItem(TOKEN_KEY) !== null && protocol !== "blob:" && origin === location.origin;
}

export function photoUrlOf(url) {
  if (!photoUrls.has(url)) photoUrls.set(url, fetchPhoto(url));
  return photoUrls.get(url);
}

async function fetchPhoto(url) {
  const response = await fetchWithToken(url);
  if (!response.ok) throw new Error(`photo: status ${response.status}`);
  return URL.createObjectURL(await response.blob()); // not revoked: the cards of other visits show it, too
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
