"""The page's style sheet. In Python, so that the code digest of the stage sees it change."""

from __future__ import annotations

INK, MUTED, RULE = "#1d2126", "#5c6570", "#dfe3e8"
BLUE, RUST, GREEN, GREY, VIOLET, SAND = (
    "#2b5f8f",
    "#b3562e",
    "#3f7d5a",
    "#8a939e",
    "#6f5a94",
    "#b08a2e",
)
"""Six hues of like weight; charts and text use no other."""
RED = "#b3261e"
"""Alarms, and nothing else."""
SERIES = (BLUE, RUST, GREEN, VIOLET, SAND, GREY)

CSS = f"""
:root {{ color-scheme: light; --ink: {INK}; --muted: {MUTED}; --rule: {RULE}; --accent: {BLUE}; }}
* {{ box-sizing: border-box; }}
html {{ scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }}
body {{
  margin: 0; color: var(--ink); background: #fff;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}}
.layout {{ display: grid; grid-template-columns: 13rem minmax(0, 62rem); gap: 3.5rem;
  max-width: 84rem; margin: 0 auto; padding: 0 2rem; }}
nav {{ position: sticky; top: 0; align-self: start; max-height: 100vh; overflow-y: auto;
  padding: 3.6rem 0 2rem; font-size: .875rem; }}
nav ol {{ list-style: none; margin: 0; padding: 0; }}
nav a {{ display: block; padding: .28rem 0; color: var(--muted); text-decoration: none; }}
nav a:hover, nav a:focus-visible {{ color: var(--accent); }}
main {{ padding: 3.2rem 0 6rem; min-width: 0; }}
h1 {{ font-size: 2.1rem; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 .6rem;
  font-weight: 650; }}
h2 {{ font-size: 1.4rem; line-height: 1.3; letter-spacing: -.008em; margin: 0 0 .7rem;
  font-weight: 640; }}
h3 {{ font-size: 1.02rem; margin: 2rem 0 .5rem; font-weight: 640; }}
section {{ margin-top: 3.4rem; padding-top: 2.2rem; border-top: 1px solid var(--rule);
  scroll-margin-top: 1rem; }}
p, li {{ max-width: 44rem; }}
p {{ margin: .5rem 0 .9rem; }}
.lead {{ font-size: 1.1rem; color: #39414b; }}
.note, figcaption {{ color: var(--muted); font-size: .875rem; line-height: 1.5; }}
.note {{ max-width: 44rem; }}
.note:has(+ .scroll) {{ margin-top: 1.4rem; }}
a {{ color: var(--accent); }}
code, pre {{ font: .86em/1.55 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }}
pre {{ background: #f6f7f9; border: 1px solid var(--rule); border-radius: 6px;
  padding: .9rem 1rem; overflow-x: auto; }}
code {{ background: #f3f5f7; padding: .08em .3em; border-radius: 4px; overflow-wrap: anywhere; }}
pre code {{ background: none; padding: 0; overflow-wrap: normal; }}
.facts {{ display: flex; flex-wrap: wrap; gap: .2rem 2rem; margin: 1.2rem 0 0; padding: 0;
  list-style: none;
  color: var(--muted); font-size: .875rem; }}
.facts b {{ color: var(--ink); font-weight: 550; }}
.scroll {{ overflow-x: auto; margin: 1rem 0 1.4rem; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; padding: 0 0 .6rem; caption-side: top; max-width: 44rem; }}
th, td {{ text-align: right; padding: .42rem .6rem; border-bottom: 1px solid var(--rule);
  vertical-align: baseline; white-space: nowrap; }}
th {{ font-weight: 550; color: var(--muted); font-size: .82rem; border-bottom-color: #b9c0c9;
  white-space: normal; }}
th:first-child, td:first-child, .left {{ text-align: left; padding-left: 0; }}
th:last-child, td:last-child {{ padding-right: 0; }}
.wrap {{ white-space: normal; min-width: 6.2rem; }}
tr.total td {{ font-weight: 600; }}
tr.group td {{ padding-top: 1.1rem; font-weight: 600; border-bottom-color: #b9c0c9; }}
.range {{ color: var(--muted); font-size: .84em; padding-left: .3em; font-weight: 400; }}
.mark {{ font-weight: 600; }} .yes {{ color: {GREEN}; }} .no {{ color: {RUST}; }}
.alarm {{ color: {RED}; font-weight: 600; }}
figure {{ margin: 1.2rem 0 1.6rem; }}
figcaption {{ margin-top: .5rem; max-width: 44rem; }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  gap: 1.4rem 2.4rem; align-items: start; }}
.charts figure {{ margin: 0; max-width: 30rem; }}
.charts.small {{ grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }}
svg {{ width: 100%; height: auto; display: block; }}
svg text {{ font-family: inherit !important; }}
img {{ display: block; max-width: 100%; height: auto; }}
.tile {{ width: 100%; aspect-ratio: 1; border-radius: 3px; background: #eef0f2; }}
.gallery {{ display: grid; gap: .5rem; margin: 1rem 0 .5rem; align-items: center;
  grid-template-columns: minmax(9rem, 1.5fr) repeat(var(--n), minmax(0, 7.2rem)); }}
.gallery p {{ margin: 0; font-size: .875rem; line-height: 1.4; padding-right: .8rem; }}
.gallery span {{ font-size: .8rem; color: var(--muted); line-height: 1.25; align-self: end; }}
.rows {{ display: grid; gap: .35rem; margin: .6rem 0; align-items: center;
  grid-template-columns: 2.3rem repeat(var(--n), minmax(0, 1fr)); }}
.rows span {{ font-size: .78rem; color: var(--muted); }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(5.6rem, 1fr));
  gap: .5rem; margin: 1rem 0 .4rem; }}
.families {{ display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr));
  gap: 1.8rem 2.6rem; margin: 1.2rem 0; }}
.families h3 {{ margin: 0 0 .1rem; }}
.tiles div {{ display: grid; gap: 3px; }}
.dense .range {{ display: block; padding: 0; line-height: 1.2; }}
.narrow {{ max-width: 34rem; }}
.tag {{ display: inline-block; font-size: .76rem; color: var(--muted);
  border: 1px solid var(--rule); border-radius: 99px; padding: .02rem .55rem;
  margin-right: .25rem; }}
.answers {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr));
  gap: 1.5rem 2.6rem; margin: 1rem 0; }}
.answer {{ display: grid; grid-template-columns: 5.6rem minmax(0, 1fr); gap: .2rem 1rem;
  align-items: start; }}
.answer p {{ margin: 0 0 .3rem; font-size: .92rem; line-height: 1.5; }}
.answer .note {{ font-size: .82rem; }}
.bar {{ display: flex; height: .7rem; min-width: 9rem; border-radius: 2px; overflow: hidden;
  background: transparent; }}
.bar i {{ display: block; background: {BLUE}; }} .bar i:first-child {{ background: #c3ccd6; }}
.key i {{ display: inline-block; width: .7rem; height: .7rem; border-radius: 2px;
  margin-right: .3rem; background: {BLUE}; }}
.key i.start {{ background: #c3ccd6; }}
dl {{ display: grid; grid-template-columns: minmax(8rem, 12rem) minmax(0, 1fr);
  gap: .35rem 1.4rem; font-size: .92rem; }}
dt {{ font-weight: 550; }} dd {{ margin: 0; color: #39414b; max-width: 40rem; }}
summary {{ cursor: pointer; color: var(--accent); padding: .3rem 0; }}
@media (max-width: 68rem) {{
  .layout {{ display: block; padding: 0 1.6rem; }}
  nav {{ position: static; padding: 1.4rem 0 0; max-height: none; }}
  nav ol {{ display: flex; flex-wrap: wrap; gap: 0 1.1rem; }}
  main {{ padding-top: 1.6rem; }}
}}
@media (max-width: 34rem) {{
  .layout {{ padding: 0 1.1rem; }}
  h1 {{ font-size: 1.7rem; }}
  section {{ margin-top: 2.4rem; padding-top: 1.6rem; }}
  .gallery {{ gap: .25rem; grid-template-columns: repeat(var(--n), minmax(0, 1fr)); }}
  .gallery p {{ grid-column: 1 / -1; padding-top: .6rem; }}
  .gallery .blank {{ display: none; }}
  .gallery span {{ font-size: .66rem; }}
  table {{ font-size: .82rem; }}
  th, td {{ padding: .4rem .35rem; }}
  .range {{ display: block; padding: 0; line-height: 1.25; }}
  .tiles {{ grid-template-columns: repeat(auto-fill, minmax(4.2rem, 1fr)); gap: .35rem; }}
  dl {{ grid-template-columns: 1fr; }} dd {{ margin-bottom: .6rem; }}
  .answer {{ grid-template-columns: 4.4rem minmax(0, 1fr); }}
}}
@media print {{ nav {{ display: none; }} .layout {{ display: block;
  }} section {{ break-inside: auto; }} }}
"""
