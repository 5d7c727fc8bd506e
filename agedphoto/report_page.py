"""The page of the report: its skeleton, style and script; it loads nothing from elsewhere."""

from string import Template

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>agedphoto demo: aged on purpose, then restored</title>
<link rel="icon" href="data:,">
<style>$css</style>
</head>
<body>
<header>
<p class="brand">agedphoto <span>demo, $version</span></p>
<h1>Aged on purpose, then&nbsp;restored</h1>
<p class="lead">$lead</p>
</header>
<main>
<section aria-label="Result" class="result">$headline</section>
<section aria-label="Photographs">$photos$unseen</section>
<section>
<h2>In numbers</h2>
<div class="two">
<table>
<thead><tr><th scope="col">Photograph</th><th scope="col">PSNR, dB</th><th scope="col">SSIM</th>
</tr></thead>
$table
</table>
<p class="note">PSNR and SSIM compare with the clean photograph; higher is better, and 3&nbsp;dB
halves the error power. “Do nothing” is the aged photograph itself. The Gaussian blur is the best
of five widths, picked with the clean photograph at hand, which gives it an advantage.</p>
</div>
</section>
<section>
<h2>What it learned from</h2>
<ul class="strip">$pairs</ul>
<p class="note">Training pairs. From top to bottom: aged, clean, and where dust, scratches and other
marks lie.</p>
</section>
<section>
<h2>How it learned</h2>
$curve
</section>
<section>
<h2>How fast</h2>
<dl class="tiles">$speed</dl>
$stages
</section>
<section>
<h2>How it was made</h2>
$details
</section>
</main>
<footer>The same figures, for machines, are in report.json. This page loads nothing from elsewhere.
</footer>
<script>$js</script>
</body>
</html>
""")

PHOTO = Template("""
<article>
<h2>$name</h2>
<p class="facts">$facts</p>
<div class="compare" hidden data-aged="photo$index-aged" data-restored="photo$index-restored"
 style="--ratio:$ratio;--max:${max_px}px">
<div class="frame">
<span class="tag left" aria-hidden="true">aged</span>
<span class="tag right" aria-hidden="true">restored</span>
<input type="range" min="0" max="100" value="50"
 aria-label="Aged to the left, restored to the right">
<span class="handle" aria-hidden="true"></span>
</div>
</div>
<div class="prints">$prints</div>
<div class="prints details">$details</div>
<p class="note">$caption</p>
</article>
""")

CSS = """
:root { --paper:#f6f3ee; --ink:#211e1a; --soft:#6a6259; --line:#d9d2c7; --lamp:#a8361a;
  --bar:#b9afa2; --mat:#e6e0d6; --mono:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
  --serif:ui-serif,"Iowan Old Style","Palatino Linotype",Palatino,"Noto Serif",Georgia,serif; }
@media (prefers-color-scheme: dark) { :root { --paper:#131110; --ink:#e8e2d8; --soft:#a0968a;
  --line:#332e29; --lamp:#f0714c; --bar:#5c534a; --mat:#0a0908; } }
* { box-sizing:border-box; }
[hidden] { display:none !important; }
html { -webkit-text-size-adjust:100%; text-size-adjust:100%; }
body { margin:0 auto; padding:0 19px 4rem; max-width:1126px; background:var(--paper);
  color:var(--ink); font:17px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
  overflow-wrap:anywhere; }
header { padding:3.5rem 0 2.5rem; }
.brand { margin:0 0 2.5rem; font-weight:600; letter-spacing:.02em; }
.brand span, .note, .facts, figcaption, dt, footer { color:var(--soft); font-weight:400; }
h1, h2, .big { font-family:var(--serif); font-weight:500; line-height:1.12; text-wrap:balance; }
h1 { margin:0 0 1.2rem; font-size:clamp(2.3rem,6.2vw,4.1rem); letter-spacing:-.02em; }
h2 { margin:0 0 1.4rem; font-size:1.75rem; letter-spacing:-.01em; }
.lead { margin:0; max-width:44em; font-size:1.15rem; text-wrap:pretty; }
.note, .facts, figcaption, footer { font-size:.85rem; line-height:1.5; }
.note { max-width:72em; text-wrap:pretty; margin:1rem 0 0; }
section, article { padding-bottom:4.5rem; }
article:last-of-type { padding-bottom:0; }
section + section, .result { border-top:1px solid var(--line); padding-top:2.5rem; }
.two { display:grid; gap:1.5rem 3.5rem; grid-template-columns:repeat(2,minmax(0,1fr)); }
.two > p { margin-top:0; }
.result .two > p { font-size:1.1rem; text-wrap:pretty; }
.big { margin:0 0 1.6rem; font-size:clamp(2.1rem,6.5vw,3.9rem); color:var(--soft);
  font-variant-numeric:lining-nums; }
.big strong { color:var(--lamp); font-weight:500; white-space:nowrap; }
.bars { list-style:none; margin:0; padding:0; font-variant-numeric:tabular-nums; }
.bars li { display:grid; grid-template-columns:1fr auto; gap:0 1rem; margin-bottom:.8rem; }
.bars b { font-weight:400; color:var(--soft); }
.bars i { grid-column:1/-1; height:6px; min-width:2px; margin-top:.25rem; background:var(--bar); }
.result li:last-child i { background:var(--lamp); } .result li:last-child b { color:inherit; }
article h2 { margin-bottom:.3rem; }
.facts { margin:0 0 1.4rem; font-variant-numeric:tabular-nums; }
.compare { padding:16px; background:var(--mat); }
.frame { --at:50%; position:relative; margin:0 auto; aspect-ratio:var(--ratio);
  width:min(100%, var(--max), 82vh * var(--ratio)); overflow:hidden; cursor:ew-resize;
  touch-action:pan-y; user-select:none; -webkit-user-select:none; }
.frame img { position:absolute; inset:0; width:100%; height:100%; pointer-events:none; }
.frame .over { clip-path:inset(0 0 0 var(--at)); }
.frame input { position:absolute; inset:0; width:100%; height:100%; margin:0; opacity:0;
  pointer-events:none; }
.handle { position:absolute; top:0; bottom:0; left:var(--at); width:2px; margin-left:-1px;
  background:#fff; box-shadow:0 0 6px #0008; pointer-events:none; }
.handle::after { content:"‹ ›"; position:absolute; top:50%; left:50%; width:44px; height:44px;
  margin:-22px; border-radius:50%; background:#fff; color:#211e1a; text-align:center;
  font:600 20px/40px system-ui,sans-serif; box-shadow:0 1px 8px #0007; }
input:focus-visible + .handle::after { outline:3px solid var(--lamp); outline-offset:3px; }
.tag { position:absolute; z-index:1; bottom:12px; padding:.1rem .6rem; border-radius:2px;
  background:#000a; color:#fff; font-size:.85rem; pointer-events:none; }
.tag.left { left:12px; } .tag.right { right:12px; }
.prints { display:grid; gap:16px; grid-template-columns:repeat(3,minmax(0,1fr)); margin-top:16px; }
.prints.details { margin-top:1.25rem; }
figure { margin:0; } figcaption { margin-top:.4rem; }
.print { position:relative; }
.prints img { display:block; width:100%; height:auto; }
.details img { image-rendering:pixelated; }
.where { position:absolute; border:1.5px solid #fff; outline:1px solid #0009; }
table { width:100%; border-collapse:collapse; font-variant-numeric:tabular-nums;
  align-self:start; }
th, td { padding:.32rem 0 .32rem 1rem; text-align:right; font-weight:400; white-space:nowrap; }
th:first-child { padding-left:0; text-align:left; white-space:normal; }
thead th, .name td { color:var(--soft); font-size:.85rem; }
.name th, .name td { border-top:1px solid var(--line); padding-top:.7rem; }
.name th { font-weight:600; }
tbody tr:last-child > * { padding-bottom:.9rem; color:var(--lamp); font-weight:600; }
.strip { list-style:none; margin:0; padding:0; display:grid; gap:16px 8px;
  grid-template-columns:repeat(auto-fill,minmax(120px,1fr)); }
.strip li { display:grid; gap:3px; padding:6px; background:#0b0a09; }
.strip img { display:block; width:100%; height:auto; }
svg { display:block; width:100%; height:auto; overflow:visible; }
svg text { font-size:12px; fill:var(--soft); font-variant-numeric:tabular-nums; }
svg .title, svg .end { fill:var(--ink); font-size:13px; font-weight:600; }
.grid, .axis, .tick { stroke:var(--line); fill:none; } .axis, .tick { stroke:var(--bar); }
.line { fill:none; stroke:var(--lamp); stroke-width:1.75; stroke-linejoin:round; }
.dot { fill:var(--lamp); }
.tiles { display:grid; gap:1.6rem 1.5rem; margin:0 0 2.5rem;
  grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); }
.tiles div { display:flex; flex-direction:column-reverse; justify-content:flex-end; }
.tiles dt { font-size:.85rem; line-height:1.35; }
.tiles dd { margin:0; font:500 1.9rem/1.2 var(--serif); font-variant-numeric:lining-nums; }
.tiles small { font:400 .9rem system-ui,sans-serif; color:var(--soft); }
details { border-bottom:1px solid var(--line); }
summary { padding:.75rem 0; cursor:pointer; font-weight:600; }
details dl { margin:0 0 1.2rem; font:.83rem/1.6 var(--mono); }
details div { display:grid; grid-template-columns:minmax(9rem,17rem) minmax(0,1fr); gap:1rem; }
details dd { margin:0; }
footer { border-top:1px solid var(--line); padding-top:1.5rem; }
@media (max-width:700px) {
  body { font-size:16px; } header { padding-top:2rem; } .brand { margin-bottom:1.8rem; }
  .lead { font-size:1.05rem; } .compare { padding:0; }
  .two { grid-template-columns:minmax(0,1fr); }
  .prints { grid-template-columns:repeat(2,minmax(0,1fr)); gap:12px; }
  .prints > :first-child, .details > figure { grid-column:1/-1; }
  .strip { grid-template-columns:repeat(4,1fr); gap:6px; } .strip li { padding:3px; }
  details div { grid-template-columns:minmax(0,1fr); gap:0; margin-bottom:.5rem; }
}
"""

JS = """
for (const box of document.querySelectorAll(".compare")) {
  const frame = box.querySelector(".frame"), range = box.querySelector("input");
  // The pictures are in the page once; the slider borrows them.
  const borrow = (id, name) => {
    const copy = document.getElementById(id).cloneNode();
    copy.removeAttribute("id");
    copy.className = name;
    return copy;
  };
  frame.prepend(borrow(box.dataset.aged, "under"), borrow(box.dataset.restored, "over"));
  const show = (at) => {
    frame.style.setProperty("--at", at + "%");
    range.setAttribute("aria-valuetext", Math.round(at) + "% aged");
  };
  const follow = (event) => {
    const { left, width } = frame.getBoundingClientRect();
    const at = Math.min(100, Math.max(0, 100 * (event.clientX - left) / width));
    range.value = at;
    show(at);
  };
  frame.addEventListener("pointerdown", (event) => {
    frame.setPointerCapture(event.pointerId);
    follow(event);
  });
  frame.addEventListener("pointermove", (event) => {
    if (frame.hasPointerCapture(event.pointerId)) follow(event);
  });
  // A click on the picture would take the focus from the arrow keys.
  frame.addEventListener("mousedown", (event) => {
    event.preventDefault();
    range.focus({ preventScroll: true });
  });
  range.addEventListener("input", () => show(Number(range.value)));
  box.hidden = false;
  show(50);
}
"""
