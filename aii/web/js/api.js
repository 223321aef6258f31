// The server's addresses, and the token that it may want.

const KEY = "aii-token";

/** What the server said: 401 and 403 are about the token. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  get denied() {
    return this.status === 401 || this.status === 403;
  }
}

function storages() {
  return [sessionStorage, localStorage];
}

/** The token that was entered in this tab or kept on this device; "" without. */
export function token() {
  try {
    return storages().map((storage) => storage.getItem(KEY)).find(Boolean) ?? "";
  } catch {
    return ""; // storage is switched off
  }
}

/** Keep a token for this tab, or on this device; "" forgets it. */
export function keepToken(value, onDevice = false) {
  try {
    for (const storage of storages()) storage.removeItem(KEY);
    if (value) storages()[onDevice ? 1 : 0].setItem(KEY, value);
  } catch {
    // Then it has to be entered again.
  }
}

/** The address of a WebSocket of ours, with the token, which browsers cannot send otherwise. */
export function socketUrl(path, parameters = {}) {
  const url = new URL(path, document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  if (token()) url.searchParams.set("token", token());
  return url;
}

/** JSON from the server; throws ServerError, with status 0 where it did not answer. */
export async function getJson(path, { timeout = 8000 } = {}) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  let response;
  try {
    const signal = AbortSignal.timeout(timeout);
    response = await fetch(new URL(path, document.baseURI), { headers, cache: "no-store", signal });
  } catch (error) {
    const slow = error.name === "TimeoutError";
    throw new ServerError(0, slow ? "The server takes too long to answer." : "The server does not answer.");
  }
  if (!response.ok) throw new ServerError(response.status, await reason(response));
  try {
    return await response.json();
  } catch {
    throw new ServerError(response.status, "The server's answer could not be read.");
  }
}

async function reason(response) {
  try {
    const { detail, error } = await response.json();
    const said = typeof detail === "string" ? detail : (error?.message ?? error);
    if (typeof said === "string") return said;
  } catch {
    // no JSON: the status has to do
  }
  return `The server answered ${response.status} ${response.statusText}`.trim();
}
