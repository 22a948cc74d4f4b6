// The load of `raysys bench serve`, run by k6: requests start at a constant rate, whether or not earlier
// ones have been answered, so a slow response delays no other request (no coordinated omission).
import http from "k6/http";
import { Counter } from "k6/metrics";

const env = __ENV;
const photos = env.PHOTOS ? env.PHOTOS.split(":").map((path) => open(path, "b")) : [];
const answered = new Counter("answered");

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
  summaryTrendStats: ["med", "p(95)", "p(99)"],
  discardResponseBodies: true,
};

function pick(number) {
  return Math.floor(Math.random() * number);
}

export default function () {
  const response = photos.length
    ? http.post(`${env.URL}v1/search`, { image: http.file(photos[pick(photos.length)], "photo.jpg") })
    : http.get(`${env.URL}v1/items/${pick(Number(env.ITEMS))}/similar?k=10`, { tags: { name: "similar" } });
  if (response.status === 200) answered.add(1);
}

export function handleSummary(data) {
  const count = (name) => (data.metrics[name] ? data.metrics[name].values.count : 0);
  const latency = data.metrics.http_req_duration ? data.metrics.http_req_duration.values : {};
  return {
    stdout: JSON.stringify({
      seconds: data.state.testRunDurationMs / 1000,
      started: count("iterations"),
      dropped: count("dropped_iterations"),
      answered: count("answered"),
      p50_ms: latency.med,
      p95_ms: latency["p(95)"],
      p99_ms: latency["p(99)"],
    }),
  };
}
