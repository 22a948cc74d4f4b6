// The load of `raysys bench serve`, run by k6: requests start at a constant rate, whether or not earlier
// ones have been answered, so a slow response delays no other request (no coordinated omission).
import http from "k6/http";
import { sleep } from "k6";
import { Counter, Trend } from "k6/metrics";

const env = __ENV;
const photos = env.PHOTOS ? env.PHOTOS.split(":").map((path) => open(path, "b")) : [];
const dimensions = Number(env.DIMENSIONS);
const changes = Number(env.CHANGES); // share of the iterations that put an item or delete it
const WATCHED = 0.2; // share of the changes that are waited for: the queries for it are load, too
const answered = new Counter("answered");
const refused = new Counter("refused");
const changed = new Counter("changed");
const failed = new Counter("failed");
const answeredMs = new Trend("answered_ms");
const refusedMs = new Trend("refused_ms");
const freshMs = new Trend("fresh_ms"); // from the acknowledgement of a change to a query that shows it

export const options = {
  scenarios: {
    load: {
      executor: "constant-arrival-rate",
      rate: Number(env.RATE),
      timeUnit: "1s",
      duration: `${env.SECONDS}s`,
      preAllocatedVUs: Number(env.CONNECTIONS),
      gracefulStop: "30s",
    },
  },
  systemTags: [], // nobody reads them
  summaryTrendStats: ["count", "med", "p(95)", "p(99)"],
  discardResponseBodies: true,
};

export function setup() {
  return http.get(`${env.URL}readyz`, { responseType: "text" }).json();
}

function pick(number) {
  return Math.floor(Math.random() * number);
}

function vector() {
  return Array.from({ length: dimensions }, () => Math.random() - 0.5);
}

function waitFor(url, status) {
  const began = Date.now();
  while (http.get(url, { tags: { name: "fresh" } }).status !== status) sleep(0.02);
  freshMs.add(Date.now() - began);
}

let put = null; // the item that this connection has put last

function change(space) {
  const isPut = put === null;
  const url = isPut ? `${env.URL}v1/items/new-${__VU}-${__ITER}` : put;
  const body = JSON.stringify({ title: "new", vector: vector(), space_id: space });
  const parameters = { headers: { "Content-Type": "application/json" }, tags: { name: "change" } };
  const response = isPut ? http.put(url, body, parameters) : http.del(url, null, parameters);
  if (response.status !== 200) return failed.add(1);
  put = isPut ? url : null;
  changed.add(1);
  if (Math.random() < WATCHED) waitFor(`${url}/similar`, isPut ? 200 : 404);
}

function query() {
  return photos.length
    ? http.post(`${env.URL}v1/search`, { image: http.file(photos[pick(photos.length)], "photo.jpg") })
    : http.get(`${env.URL}v1/items/${pick(Number(env.ITEMS))}/similar?k=10`, { tags: { name: "similar" } });
}

export default function (ready) {
  if (Math.random() < changes) return change(ready.space_id);
  const response = query();
  if (response.status === 200) {
    answered.add(1);
    answeredMs.add(response.timings.duration);
  } else if (response.status === 503) {
    refused.add(1);
    refusedMs.add(response.timings.duration);
  } else failed.add(1);
}

export function handleSummary(data) {
  const values = (name) => (data.metrics[name] ? data.metrics[name].values : {});
  const count = (name) => values(name).count || 0;
  const latency = values("answered_ms");
  return {
    stdout: JSON.stringify({
      seconds: data.state.testRunDurationMs / 1000,
      started: count("answered") + count("refused") + count("failed"),
      dropped: count("dropped_iterations"),
      answered: count("answered"),
      failed: count("failed"),
      p50_ms: latency.med || 0,
      p95_ms: latency["p(95)"] || 0,
      p99_ms: latency["p(99)"] || 0,
      changed: count("changed"),
      fresh_p99_ms: values("fresh_ms")["p(99)"] || 0,
      refused_p99_ms: values("refused_ms")["p(99)"] || 0,
    }),
  };
}
