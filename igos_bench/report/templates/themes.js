// Dark and light: as the system has it, until the button is pressed.

const themeButton = document.getElementById("theme");
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

function storedTheme() {
  try {
    return localStorage.getItem("igos-bench-theme");
  } catch {
    return null; // where a browser keeps nothing for pages from a disk
  }
}

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  themeButton.textContent = theme === "dark" ? "Light" : "Dark";
}

themeButton.addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  showTheme(theme);
  try {
    localStorage.setItem("igos-bench-theme", theme);
  } catch {
    // it holds for this visit
  }
});
systemIsDark.addEventListener("change", () => showTheme(storedTheme() ?? (systemIsDark.matches ? "dark" : "light")));
showTheme(storedTheme() ?? (systemIsDark.matches ? "dark" : "light"));
