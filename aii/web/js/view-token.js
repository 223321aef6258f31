// Asking for the token that the server was started with.

import { getJson, keepToken, token } from "./api.js";
import { byId, setText } from "./dom.js";

/** The dialog; onAccepted() once the server has taken a token. */
export class TokenView {
  constructor({ onAccepted }) {
    this.dialog = byId("token-dialog");
    this.onAccepted = onAccepted;
    byId("access").addEventListener("click", () => this.ask());
    byId("token-cancel").addEventListener("click", () => this.dialog.close());
    byId("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
  }

  /** Open the dialog, unless it is open. */
  ask() {
    byId("access").hidden = false;
    if (this.dialog.open) return;
    this.problem(token() ? "The server no longer takes the token that this page has." : "");
    byId("token").value = "";
    this.dialog.showModal();
  }

  async submit() {
    const before = token();
    keepToken(byId("token").value.trim(), byId("token-keep").checked);
    try {
      await getJson("calls");
    } catch (error) {
      keepToken(error.denied ? "" : before);
      this.problem(error.denied ? "The server does not take this token." : error.message);
      byId("token").select();
      return;
    }
    this.dialog.close();
    this.onAccepted();
  }

  problem(text) {
    byId("token-problem").hidden = text === "";
    setText(byId("token-problem"), text);
  }
}
