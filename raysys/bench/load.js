// The load of `raysys bench serve`, run by k6: requests start at a constant rate, whether or not earlier
// ones have been answered, so a slow response delays no other request (no coordinated omission).
import http from "k6/http";
import { sleep } from "k6";
import { Counter, Trend } from "k6/metrics";

const env = __ENV;
const photos = env.PHOTOS ? env.PHOTOS.split(":").map((path) => open(path, "b")) : [];
const dimensions = Number(env.DIMENSIONS);
const changes = Number(env.CHANGES); // share of the iterations that put an item and delete it
const answered = new Counter("answered");
const refused = new Counter("refused");
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

function change(space) {
  const url = `${env.URL}v1/items/new-${__VU}-${__ITER}`;
  const body = JSON.stringify({ title: "new", vector: vector(), space_id: space });
  const put = http.put(url, body, { headers: { "Content-Type": "application/json" }, tags: { name: "put" } });
  if (put.status !== 200) return failed.add(1);
  waitFor(`${url}/similar`, 200);
  if (http.del(url, null, { tags: { name: "delete" } }).status !== 200) return failed.add(1);
  waitFor(`${url}/similar`, 404);
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
      num_fresh: count("fresh_ms"),
      fresh_p99_ms: values("fresh_ms")["p(99)"] || 0,
      refused_p99_ms: values("refused_ms")["p(99)"] || 0,
    }),
  };
}
