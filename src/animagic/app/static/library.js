// The library: the jobs of the server as cards, and two results side by side. Runs in a gr.HTML.
const API = "/v1/videos";
const $ = (name) => element.querySelector(`[data-am=${name}]`);
const PAGE = 24;
const compared = []; // ids, at most two
let last = null;

function made(tag, values = {}, ...children) {
  const node = Object.assign(document.createElement(tag), values);
  node.append(...children);
  return node;
}

function card(video) {
  const done = video.status === "completed";
  const error = video.error?.code === "cancelled" ? "cancelled" : video.error?.message;
  const state = done ? "" : (error ?? (video.status === "queued" ? "waiting" : `${video.progress} %`));
  const title = video.prompt || video.title || video.model;
  const picture = done
    ? made("img", { src: `${API}/${video.id}/content?variant=thumbnail`, alt: "", loading: "lazy" })
    : made("span", { className: "am-none", textContent: state });
  const open = made("button", { type: "button", className: "am-open" }, picture, made("b", { textContent: title }));
  open.setAttribute("aria-label", `Show ${title}${state ? `, ${state}` : ""}`);
  open.onclick = () => window.dispatchEvent(new CustomEvent("animagic:open", { detail: video.id }));
  const when = new Date(video.created_at * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  const foot = made("p", {}, made("span", { textContent: `${video.model} · ${when}` }));
  const item = made("li", { className: "am-card" }, open, foot);
  item.dataset.id = video.id;
  if (done) {
    const box = made("input", { type: "checkbox", checked: compared.includes(video.id) });
    box.onchange = () => compare(video, box.checked);
    foot.append(made("label", {}, box, " compare"));
  }
  const remove = made("button", { type: "button", className: "am-remove", textContent: "Delete" });
  remove.setAttribute("aria-label", `Delete ${title}`);
  remove.onclick = async () => {
    if (!window.confirm(`Delete "${title}" for good?`)) return;
    const answer = await server.delete_video([video.id]);
    if (answer.error) $("state").textContent = answer.error;
    else item.remove();
  };
  foot.append(remove);
  return item;
}

async function load(more = false) {
  const after = more && last ? `&after=${encodeURIComponent(last)}` : "";
  const answer = await fetch(`${API}?order=desc&limit=${PAGE}${after}`);
  if (!answer.ok) {
    $("state").textContent = `The list cannot be read: the server answers ${answer.status}.`;
    return;
  }
  const { data, has_more } = await answer.json();
  const cards = data.map(card);
  if (more) $("cards").append(...cards);
  else $("cards").replaceChildren(...cards);
  last = data.at(-1)?.id ?? null;
  $("more").hidden = !(has_more ?? data.length === PAGE);
  $("state").textContent = $("cards").children.length ? "" : "Nothing has been made yet.";
}

async function compare(video, wanted) {
  const at = compared.indexOf(video.id);
  if (at >= 0) compared.splice(at, 1);
  if (wanted) compared.push(video.id);
  if (compared.length > 2) compared.shift();
  for (const item of $("cards").children) {
    const box = item.querySelector("input");
    if (box) box.checked = compared.includes(item.dataset.id);
  }
  $("pair").hidden = compared.length !== 2;
  if (compared.length !== 2) return;
  const videos = compared.map((id, i) => {
    const film = made("video", { src: `${API}/${id}/content`, muted: true, loop: true, playsInline: true, controls: true });
    film.setAttribute("aria-label", i ? "The second video" : "The first video");
    return film;
  });
  $("films").replaceChildren(...videos);
  const differing = await server.differences([...compared]);
  const rows = Object.entries(differing).map(([name, values]) =>
    made("tr", {}, made("th", { textContent: name }), ...values.map((value) => made("td", { textContent: value }))),
  );
  $("differences").replaceChildren(...rows);
  together();
}

function together() {
  for (const film of $("films").children) {
    film.currentTime = 0;
    film.play().catch(() => {});
  }
}

$("together").onclick = together;
$("more").onclick = () => load(true);
$("renew").onclick = () => load();
// Read anew whenever the tab comes into view, and when a video is finished.
new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && load()).observe(element);
window.addEventListener("animagic:over", () => element.offsetParent && load());
