// The banner that shows an error, with a button that tries again, after the time that the service asks for.

let retryTimer; // counts down to the next retry

const byId = (id) => document.getElementById(id);

export function showError({ message, retryAfterS = 0 }, retry) {
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

export function hasError() {
  return !byId("banner").hidden;
}

export function hideError() {
  clearTimeout(retryTimer);
  byId("banner").hidden = true;
}

function countDown(remainingS) {
  byId("retry").disabled = remainingS > 0;
  byId("retry").textContent = remainingS > 0 ? `Try again in ${remainingS} s` : "Try again";
  if (remainingS > 0) retryTimer = setTimeout(countDown, 1000, remainingS - 1);
}
