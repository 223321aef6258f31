// Before anything is drawn: the theme that was chosen, so that the page does not flash.
"use strict";
(() => {
  try {
    const chosen = localStorage.getItem("aii-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // storage is switched off: the system's theme it is
  }
})();
