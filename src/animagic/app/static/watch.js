// The panel that watches a job: runs in a gr.HTML, with `element`, `props`, `server` and `watch` in reach.
const API = "/v1/videos";
const $ = (name) => element.querySelector(`[data-am=${name}]`);
const MSE = window.ManagedMediaSource ?? window.MediaSource;
let job = null; // what is shown: {id, facts, closed, ...}

const say = (seconds) =>
  seconds < 60 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;

function text(name, value) {
  if ($(name).textContent !== value) $(name).textContent = value;
}

function show(name, visible) {
  $(name).hidden = !visible;
}

// ---------------------------------------------------------------- attaching

async function attach(id) {
  if (job?.id === id) return;
  detach();
  const mine = (job = { id, rows: [], status: null });
  const address = new URL(location);
  address.searchParams.set("job", id);
  history.replaceState(null, "", address);
  if (props.value?.job !== id) props.value = { job: id };
  const facts = await server.facts([id]);
  if (job !== mine) return;
  if (facts.error) {
    job = null;
    show("panel", true);
    text("title", "");
    text("state", facts.error);
    return;
  }
  job.facts = facts;
  document.body.classList.add("am-attached");
  show("empty", false);
  show("panel", true);
  text("title", facts.title);
  text("model", facts.model);
  $("download").href = `${API}/${id}/content`;
  for (const name of ["plan", "notes"]) $(name).replaceChildren();
  for (const name of ["plan-box", "timeline-box", "notes", "bar", "preview"]) show(name, false);
  drawTimeline();
  settle(facts.status, facts);
  if (job.status === "completed") return finished();
  if (job.status === "failed") return;
  listen(mine);
  play(mine);
  if (window.matchMedia("(max-width: 900px)").matches) element.scrollIntoView({ behavior: "smooth" });
}

function detach() {
  if (!job) return;
  job.events?.close();
  job.reading?.abort();
  job = null;
  const video = $("video");
  video.removeAttribute("src");
  video.load();
}

function settle(status, facts = {}) {
  job.status = status;
  const over = status === "completed" || status === "failed";
  const line = {
    queued: facts.place ? `Waiting: ${facts.place} before it` : "Waiting for its turn",
    in_progress: "Loading the model",
    completed: "Finished",
    failed: facts.code === "cancelled" ? "Cancelled" : facts.message || "Failed",
  }[status];
  text("state", line);
  $("panel").dataset.status = facts.code === "cancelled" ? "cancelled" : status;
  show("cancel", !over);
  show("end", job.facts.endless && status === "in_progress");
  show("finished", status === "completed");
  show("edit", job.facts.live && !over);
  show("bar", status === "in_progress");
  if (over) {
    show("left", false);
    show("preview", false);
    job.events?.close();
    window.dispatchEvent(new CustomEvent("animagic:over", { detail: job.id }));
  }
}

async function ask(mine) {
  const facts = await server.facts([mine.id]);
  if (job !== mine || facts.error) return;
  job.facts = facts;
  if (facts.status !== job.status) {
    settle(facts.status, facts);
    if (facts.status === "completed" && !job.reading) finished();
  }
  return facts;
}

// ---------------------------------------------------------------- what happens: server-sent events

function listen(mine) {
  const source = (mine.events = new EventSource(`${API}/${mine.id}/events`));
  const on = (kind, act) =>
    source.addEventListener(kind, (event) => job === mine && act(event.data ? JSON.parse(event.data) : {}));
  on("status", async (data) => data.status !== job.status && (await ask(mine)));
  on("progress", progress);
  on("note", (data) => {
    const line = document.createElement("li");
    line.textContent = data.line;
    $("notes").append(line);
    show("notes", true);
  });
  on("preview", (data) => {
    if ($("video").readyState > 1) return;
    $("preview").src = `${data.url}?${Date.now()}`;
    show("preview", true);
  });
  // The browser connects again by itself; if it gives up, the state says why.
  source.onerror = () => source.readyState === EventSource.CLOSED && setTimeout(() => job === mine && ask(mine), 500);
}

function progress(data) {
  if (job.status === "queued") settle("in_progress");
  const total = data.total_steps;
  const share = total ? data.step / total : null;
  show("bar", true);
  if (share === null) $("bar").removeAttribute("value");
  else $("bar").value = share;
  const frames = data.total_frames ? `${data.frames} of ${data.total_frames} frames` : `${data.frames} frames`;
  text("state", total ? `Step ${data.step} of ${total} · ${frames}` : `Step ${data.step} · ${frames}`);
  show("left", data.seconds_left !== null && data.seconds_left !== undefined);
  if (data.seconds_left) text("left", `about ${say(data.seconds_left)} left`);
  if (data.levels?.length) {
    job.now = data;
    job.rows.push(data);
    drawPlan();
    drawTimeline();
  }
}

// ---------------------------------------------------------------- the video while it is made

function codecs(bytes) {
  // The head of the stream names the profile behind the letters avcC; a track of sound has mp4a.
  const head = new TextDecoder("latin1").decode(bytes);
  const at = head.indexOf("avcC");
  if (at < 0) return null;
  const profile = [...bytes.slice(at + 5, at + 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `video/mp4; codecs="avc1.${profile}${head.includes("mp4a") ? ", mp4a.40.2" : ""}"`;
}

async function start(video) {
  try {
    await video.play();
  } catch {
    video.muted = true; // without a touch of the page, only silence may begin by itself
    await video.play().catch(() => {});
  }
}

async function play(mine) {
  const video = $("video");
  video.loop = false;
  if (!MSE) {
    video.src = `${API}/${mine.id}/stream`;
    return start(video);
  }
  const media = new MSE();
  video.disableRemotePlayback = true; // ManagedMediaSource asks for it
  video.src = URL.createObjectURL(media);
  await new Promise((resolve) => media.addEventListener("sourceopen", resolve, { once: true }));
  mine.reading = new AbortController();
  let buffer = null;
  let head = new Uint8Array();
  const append = async (bytes) => {
    for (;;) {
      try {
        buffer.appendBuffer(bytes);
      } catch (error) {
        if (error.name !== "QuotaExceededError" || video.currentTime < 20) throw error;
        buffer.remove(0, video.currentTime - 10); // what was seen makes room
        await new Promise((resolve) => buffer.addEventListener("updateend", resolve, { once: true }));
        continue;
      }
      await new Promise((resolve) => buffer.addEventListener("updateend", resolve, { once: true }));
      return;
    }
  };
  try {
    const answer = await fetch(`${API}/${mine.id}/stream`, { signal: mine.reading.signal });
    if (!answer.ok) throw new Error(`${answer.status}`);
    const reader = answer.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || job !== mine) break;
      if (buffer === null) {
        head = Uint8Array.from([...head, ...value]);
        const type = codecs(head);
        if (type === null) continue;
        buffer = media.addSourceBuffer(type);
        await append(head);
        show("preview", false);
        start(video);
      } else await append(value);
    }
    if (job !== mine) return;
    if (media.readyState === "open" && buffer !== null) media.endOfStream();
    mine.reading = null;
    video.loop = true;
    if (video.paused || video.ended) start(video);
    const facts = await ask(mine);
    if (facts?.status === "completed" && buffer === null) finished();
  } catch (error) {
    mine.reading = null;
    if (job !== mine) return;
    const facts = await ask(mine).catch(() => null);
    // The connection broke, or the server starts again: the video goes on where the job is.
    if (!facts || facts.status === "queued" || facts.status === "in_progress")
      setTimeout(() => job === mine && play(mine), 2000);
    else if (facts.status === "completed") finished();
  }
}

function finished() {
  const video = $("video");
  video.src = `${API}/${job.id}/content`;
  video.loop = true;
  start(video);
}

// ---------------------------------------------------------------- the plan: a row a step, a cell a latent frame

function colour(share) {
  const noise = [76, 40, 130];
  const clean = [255, 214, 102];
  return `rgb(${noise.map((from, i) => Math.round(from + (clean[i] - from) * share)).join(",")})`;
}

function drawPlan() {
  const rows = job.rows.slice(-240);
  const width = Math.max(...rows.map((row) => row.start + row.levels.length), job.facts.latents ?? 0);
  const svg = $("plan");
  svg.setAttribute("viewBox", `0 0 ${width} ${Math.max(rows.length, 12)}`);
  const shapes = rows.map((row, y) => {
    let made = row.start ? `<rect x="0" y="${y}" width="${row.start}" height="1" fill="var(--am-final)"/>` : "";
    for (let i = 0; i < row.levels.length; ) {
      let end = i + 1; // neighbours of one level are one shape
      while (end < row.levels.length && row.levels[end] === row.levels[i]) end++;
      const fill = colour(row.levels[i] / row.num_levels);
      made += `<rect x="${row.start + i}" y="${y}" width="${end - i}" height="1" fill="${fill}"/>`;
      i = end;
    }
    return made;
  });
  svg.innerHTML = shapes.join("");
  const { start, levels, num_levels } = rows.at(-1);
  svg.setAttribute(
    "aria-label",
    `${start} latent frames are final; frames ${start + 1} to ${start + levels.length} are at levels ` +
      `${Math.min(...levels)} to ${Math.max(...levels)} of ${num_levels}.`,
  );
  show("plan-box", true);
}

// ---------------------------------------------------------------- prompts on a timeline

function drawTimeline() {
  const { chunks, prompts, live, chunk_width: width } = job.facts;
  const later = Object.keys(prompts).length > 1;
  show("timeline-box", Boolean(chunks) && (live || later));
  if (!chunks) return;
  const final = job.now ? Math.floor(job.now.start / width) : 0;
  const begun = job.now ? Math.ceil((job.now.start + job.now.levels.length) / width) : 0;
  const over = job.status === "completed";
  const cells = Array.from({ length: chunks }, (_, chunk) => {
    const cell = document.createElement("button");
    const state = over || chunk < final ? "final" : chunk < begun ? "in work" : "to come";
    cell.type = "button";
    cell.className = "am-chunk";
    cell.dataset.state = state;
    cell.disabled = state !== "to come" || !live;
    cell.title = prompts[chunk] ?? "";
    cell.setAttribute("aria-label", `Chunk ${chunk}, ${state}${prompts[chunk] ? `: ${prompts[chunk]}` : ""}`);
    cell.innerHTML = `<b>${chunk}</b><span></span>`;
    cell.lastChild.textContent = prompts[chunk] ?? "";
    cell.onclick = () => {
      $("chunk").value = chunk;
      $("prompt").focus();
    };
    return cell;
  });
  const key = cells.map((cell) => cell.outerHTML).join("");
  if (job.drawn === key) return; // so that the focus stays where it is
  job.drawn = key;
  $("timeline").replaceChildren(...cells);
  $("chunk").max = chunks - 1;
  if (!$("chunk").value || Number($("chunk").value) < begun) $("chunk").value = Math.min(begun, chunks - 1);
}

$("edit").onsubmit = async (event) => {
  event.preventDefault();
  if (!$("prompt").value.trim()) return;
  const answer = await server.prompt([job.id, $("prompt").value, Number($("chunk").value)]);
  text("edited", answer.error ?? `From chunk ${answer.chunk} on: ${$("prompt").value}`);
  if (answer.error) return;
  job.facts.prompts[answer.chunk] = $("prompt").value;
  $("prompt").value = "";
  drawTimeline();
};

// ---------------------------------------------------------------- buttons

$("cancel").onclick = async () => {
  $("cancel").disabled = true;
  text("state", "Stopping");
  const mine = job;
  const answer = await server.cancel([mine.id]);
  $("cancel").disabled = false;
  if (answer.error) text("state", answer.error);
  for (let i = 0; i < 60 && job === mine; i++) {
    const facts = await ask(mine);
    if (facts && facts.status !== "in_progress" && facts.status !== "queued") return;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
};
$("end").onclick = async () => {
  const answer = await server.end([job.id]);
  text("state", answer.error ?? "Ending with the frames that are final");
};
$("link").onclick = async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    text("state", "The address of this page is copied: it shows this video on any device.");
  } catch {
    window.prompt("The address that shows this video:", location.href);
  }
};
$("about").ontoggle = async () => {
  if (!$("about").open || !job) return;
  const facts = await server.metadata([job.id]);
  const rows = Object.entries(facts).map(([name, value]) => {
    const row = document.createElement("tr");
    row.append(document.createElement("th"), document.createElement("td"));
    row.firstChild.textContent = name;
    row.lastChild.textContent = value;
    return row;
  });
  $("metadata").replaceChildren(...rows);
};

for (const field of document.querySelectorAll(".am-number textarea, .am-number input")) field.inputMode = "decimal";
window.addEventListener("animagic:open", (event) => attach(event.detail));
watch("value", () => props.value?.job && attach(props.value.job));
const asked = new URL(location).searchParams.get("job");
if (asked) attach(asked);
