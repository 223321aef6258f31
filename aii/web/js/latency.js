// Latencies of the two endpoints over time: what is kept, and what is said of it. No document here.

export const MOST_POINTS = 600; // five minutes at two a second
export const ENOUGH = 20; // updates of each endpoint, ten seconds: the first ones are short windows

export const emptySeries = () => ({ points: [], total: 0 });

/** The series with one more point { t: seconds since the start, ms }. */
export function add(series, point) {
  return { points: [...series.points, point].slice(-MOST_POINTS), total: series.total + 1 };
}

/** The value below which a share of the values lie; between two of them by a straight line. */
export function quantile(values, share) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const place = (sorted.length - 1) * share;
  const low = Math.floor(place);
  const high = Math.ceil(place);
  return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
}

/** { last, median, p95, total } in milliseconds, null where nothing was measured. */
export function summary(series) {
  const values = series.points.map((point) => point.ms);
  return {
    last: values.at(-1) ?? null,
    median: quantile(values, 0.5),
    p95: quantile(values, 0.95),
    total: series.total,
  };
}

/** One sentence that compares the endpoints by their medians, once there is enough to compare. */
export function verdict(standard, optimized) {
  const slow = summary(standard);
  const fast = summary(optimized);
  const least = Math.min(slow.total, fast.total);
  if (least === 0) return "";
  if (least < ENOUGH) return `What the cache gains is told after ${ENOUGH} updates; ${least} so far.`;
  const windows = `medians of ${slow.total} and ${fast.total} updates`;
  if (slow.median === 0) return "";
  const gain = Math.round((1 - fast.median / slow.median) * 100);
  if (gain === 0) return `Both take about the same time (${windows}; both share one engine).`;
  return `With the cache, an update takes ${Math.abs(gain)} % ${gain > 0 ? "less" : "more"} time (${windows}; both share one engine).`;
}

/** Round values from 0 up for an axis that reaches max. */
export function ticks(max, wanted = 4) {
  const rough = Math.max(max, 1e-9) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
  const steps = Math.max(1, Math.ceil(max / step - 1e-9));
  return Array.from({ length: steps + 1 }, (_, i) => i * step);
}

/** Points as the d of an SVG path. */
export function path(points, x, y) {
  return points.map((p, i) => `${i ? "L" : "M"}${x(p.t).toFixed(1)} ${y(p.ms).toFixed(1)}`).join("");
}
