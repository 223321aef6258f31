// When to try again. No document here.

const FIRST = 1;
const LONGEST = 30;

/** Seconds to wait before attempt n (0, 1, ...): doubling, with chance so that pages spread. */
export function wait(attempt, chance = Math.random()) {
  const most = Math.min(LONGEST, FIRST * 2 ** Math.min(attempt, 10));
  return most * (0.75 + 0.25 * chance);
}
