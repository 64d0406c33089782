// Before the first paint, so that a chosen theme never flashes. Without a choice the page follows the system.
try {
  const theme = new URLSearchParams(location.search).get("theme") || localStorage.getItem("abruzzi-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch (error) {
  console.warn("The theme is not remembered: this browser gives no storage.", error);
}
