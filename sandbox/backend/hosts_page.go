package backend

import (
	"bytes"
	"cmp"
	_ "embed"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/distributedcompute/host-agent/core/backend/protocol"
)

const dashboardPath = "/dashboard"

//go:embed hosts_page.html
var dashboardHTML string

// hostRow is a host on the dashboard.
type hostRow struct {
	Node
	Earnings protocol.Earnings
}

// Name is what its owner knows a host by.
func (h hostRow) Name() string { return cmp.Or(h.Hostname, "host "+h.ID[:min(8, len(h.ID))]) }

// State is one word for how a host is.
func (h hostRow) State() string {
	switch {
	case !h.Connected:
		return "offline"
	case h.Heartbeat != nil:
		return string(h.Heartbeat.Status)
	}
	return "connecting"
}

// GPUs are the models of a host's GPUs.
func (h hostRow) GPUs() (models []string) {
	if h.Register != nil {
		for _, gpu := range h.Register.Hardware.GPUs {
			models = append(models, gpu.Model)
		}
	}
	return models
}

// dashboard shows the hosts that have a good key, connected or not, and what they earn. It asks nobody
// who he is: whoever can reach loopback can see the sandbox.
func (b *Backend) dashboard(w http.ResponseWriter, r *http.Request) {
	// By another name it would be a page elsewhere that looks in through the owner's browser.
	host, _, _ := net.SplitHostPort(r.Host)
	if address, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !address.IsLoopback()) {
		http.Error(w, "The dashboard is on loopback only.", http.StatusForbidden)
		return
	}
	var rows []hostRow
	b.mu.Lock()
	for _, n := range b.nodes {
		if !n.expired {
			rows = append(rows, hostRow{Node: n.picture()})
		}
	}
	b.mu.Unlock()
	slices.SortFunc(rows, func(x, y hostRow) int {
		return cmp.Or(cmp.Compare(x.Owner.Email, y.Owner.Email), cmp.Compare(x.Name(), y.Name()), cmp.Compare(x.ID, y.ID))
	})
	for i := range rows {
		rows[i].Earnings = b.Earnings(rows[i].ID)
	}
	var page bytes.Buffer
	if err := template.Must(template.New("").Parse(dashboardHTML)).Execute(&page, rows); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_, _ = page.WriteTo(w)
}
