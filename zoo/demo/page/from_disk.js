// Browsers load neither modules nor WebAssembly for a page that was opened from the disk.
if (location.protocol === "file:") {
  const status = document.getElementById("status");
  status.textContent = "This page has to come from a server: run `python serve.py` in its folder and open the address it prints.";
  status.hidden = false;
}
