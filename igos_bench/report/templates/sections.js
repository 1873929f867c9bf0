// One section at a time, the one that the address names behind its `#`.

const sections = [...document.querySelectorAll("main > section")];

function showSection() {
  const asked = sections.find((section) => `#${section.id}` === location.hash) ?? sections[0];
  for (const section of sections) section.classList.toggle("here", section === asked);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${asked.id}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  scrollTo(0, 0);
  draw();
}

document.body.classList.add("scripts");
addEventListener("hashchange", showSection);
showSection();
