// The live list: one WebSocket that comes back by itself.

import { getJson, socketUrl } from "./api.js";
import { wait } from "./backoff.js";

/**
 * Follow the server's events.
 *
 * Calls back with onMessage(message), and onState({ state, seconds }) where state is "connecting",
 * "live", "lost" (another attempt follows in so many seconds; message where the server said why) or
 * "denied" (a token is wanted; call retry() once there is one).
 */
export function follow({ onMessage, onState }) {
  let socket = null;
  let timer = 0;
  let attempt = 0;

  function connect() {
    clearTimeout(timer);
    onState({ state: "connecting", attempt });
    const mine = new WebSocket(socketUrl("ws/events"));
    socket = mine;
    mine.onmessage = ({ data }) => {
      const message = parsed(data);
      if (message === null || socket !== mine) return;
      if (message.type === "snapshot") {
        attempt = 0;
        onState({ state: "live" });
      }
      onMessage(message);
    };
    mine.onclose = ({ reason }) => {
      if (socket === mine) closed(reason);
    };
  }

  // A browser does not tell why a handshake failed, so ask in a way that does.
  async function closed(reason) {
    socket = null;
    try {
      await getJson("calls");
    } catch (error) {
      if (error.denied) {
        // What the server says to a wrong token is for programs.
        onState({ state: "denied", message: error.status === 401 ? "" : error.message });
        return;
      }
    }
    const seconds = wait(attempt);
    attempt += 1;
    onState({ state: "lost", seconds, message: reason.split("; ")[0] });
    timer = setTimeout(connect, seconds * 1000);
  }

  function retry() {
    const old = socket;
    socket = null;
    old?.close();
    attempt = 0;
    connect();
  }

  window.addEventListener("online", () => socket === null && retry());
  connect();
  return { retry };
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null; // not ours to fall over
  }
}
