package signin

import (
	"html"
	"io"
	"net/http"
	"strings"
)

// page is what a browser shows at the end of a sign-in.
type page struct {
	Title, Text string
	Good        bool
	Host, Owner string // "": not shown
}

// The page needs nothing from anywhere. It is written without html/template, which makes the linker keep
// every method of the program, some 5 MB of it.
const (
	pageHead = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>`
	pageStyle = `</title>
<style>
:root { --back: #f3f4f6; --card: #fff; --text: #16181d; --soft: #5b6270; --line: #e2e5ea; --good: #157f3c; --bad: #b4231a }
@media (prefers-color-scheme: dark) {
  :root { --back: #111317; --card: #1b1e24; --text: #eceef2; --soft: #a2a9b6; --line: #2d323b; --good: #4cc476; --bad: #ff8a80 }
}
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem; background: var(--back); color: var(--text); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }
main { width: 100%; max-width: 28rem; padding: 2rem; background: var(--card); border: 1px solid var(--line); border-radius: 1rem; overflow-wrap: anywhere }
.sign { display: grid; place-items: center; width: 3rem; height: 3rem; border: 2px solid; border-radius: 50%; font-size: 1.5rem; line-height: 1; color: var(--bad) }
.good { color: var(--good) }
h1 { margin: 1rem 0 .5rem; font-size: 1.4rem; line-height: 1.25 }
p { margin: .5rem 0 0; color: var(--soft) }
dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem; margin: 1rem 0; padding: 1rem 0; border: solid var(--line); border-width: 1px 0 }
dt { color: var(--soft) }
dd { margin: 0; font-weight: 600 }
</style>
</head>
<body>
<main>
`
	pageEnd = `</main>
</body>
</html>
`
)

// html is the whole page. Whatever is shown is escaped.
func (p page) html() string {
	var b strings.Builder
	write := func(markup, text string) { b.WriteString(markup + html.EscapeString(text)) }
	write(pageHead, p.Title)
	b.WriteString(pageStyle)
	if p.Good {
		b.WriteString(`<div class="sign good" aria-hidden="true">✓</div>`)
	} else {
		b.WriteString(`<div class="sign" aria-hidden="true">!</div>`)
	}
	write("\n<h1>", p.Title)
	b.WriteString("</h1>\n")
	if p.Owner != "" || p.Host != "" {
		b.WriteString("<dl>")
		for _, fact := range [][2]string{{"Account", p.Owner}, {"Host", p.Host}} {
			if fact[1] != "" {
				write("<dt>"+fact[0]+"</dt><dd>", fact[1])
				b.WriteString("</dd>")
			}
		}
		b.WriteString("</dl>\n")
	}
	write("<p>", p.Text)
	b.WriteString("</p>\n" + pageEnd)
	return b.String()
}

// protect sets what holds for every answer: it is kept nowhere, loads nothing, tells nobody where it
// came from, and stands in no frame.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

func render(w http.ResponseWriter, status int, p page) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	// An error is the browser's going away.
	_, _ = io.WriteString(w, p.html())
}
