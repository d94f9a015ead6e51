package tray

import (
	"fmt"
	"strings"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/rental"
)

// mostRentals and mostAddresses are how many a menu has room for.
const (
	mostRentals   = 10
	mostAddresses = 10
)

// What a rental's title begins with leaves room for where the rental stands.
const (
	imageLength = 40
	idLength    = 24
)

// rentals gives each rental a submenu of its own at the top: GNOME flattens whatever is deeper.
func rentals(v view) []entry {
	if v.link != heard {
		return nil
	}
	all := live(v.status)
	var entries []entry
	named := map[string]int{}
	for _, r := range all {
		named[rentalName(r)]++
	}
	for _, r := range all[:min(len(all), mostRentals)] {
		title := rentalTitle(r, named[rentalName(r)] > 1)
		entries = append(entries, entry{key: "rental " + string(r.ID), title: title, below: rentalFacts(v, r)})
	}
	if more := len(all) - mostRentals; more > 0 {
		entries = append(entries, choice("more", fmt.Sprintf("and %d more (copy the command that lists them)", more), copyText, "distributed-agent rentals"))
	}
	return entries
}

// rentalTitle tells a rental from those of the same name, where it has any, by its id. What the rentals do makes no
// difference to that, or each step of one would change the titles of all.
func rentalTitle(r rental.Status, namesakes bool) string {
	title := rentalName(r)
	if namesakes {
		title += " (" + clip(string(r.ID), idLength) + ")"
	}
	if words := rentalWords(r); words != "" {
		title += ": " + words
	}
	return title
}

func rentalName(r rental.Status) string {
	name := clip(shortImage(r.Spec.Image), imageLength)
	if len(r.Spec.GPUs) > 0 {
		name += " on GPU " + gpuIndices(r.Spec.GPUs)
	}
	return name
}

// rentalWords says where a rental stands, "" where it just runs.
func rentalWords(r rental.Status) string {
	switch r.State {
	case rental.Pulling:
		return "downloading" + share(r.Progress)
	case rental.Creating, rental.Starting:
		return "starting"
	case rental.Tunnelling:
		return "opening its ports"
	case rental.Stopping:
		return "ending"
	case rental.Running:
		if r.Unreachable {
			return "not reachable"
		}
		return ""
	}
	return string(r.State)
}

// share is coarse, because every change of a title closes the menu somebody has open.
func share(p *rental.Progress) string {
	if p == nil || p.Total <= 0 {
		return ""
	}
	tenths := min(max(int(float64(p.Current)/float64(p.Total)*10), 0), 10)
	return fmt.Sprintf(", %d %%", tenths*10)
}

func gpuIndices(gpus []rental.GPU) string {
	indices := make([]string, len(gpus))
	for i, gpu := range gpus {
		indices[i] = fmt.Sprint(gpu.Index)
	}
	return strings.Join(indices, ", ")
}

func rentalFacts(v view, r rental.Status) []entry {
	facts := []entry{
		text("id", "Rental "+string(r.ID)),
		text("image", r.Spec.Image),
		text("gpus", describeGPUs(r.Spec.GPUs, v.status)),
	}
	if !r.StartedAt.IsZero() {
		since := "Since " + clock(r.StartedAt, v.now)
		if !r.Spec.ExpiresAt.IsZero() {
			since += ", until " + clock(r.Spec.ExpiresAt, v.now)
		}
		facts = append(facts, text("since", since))
	}
	if r.Spec.PricePerHour != "" {
		facts = append(facts, text("price", money(r.Spec.PricePerHour, v.status.Offer.Currency)+" per hour"))
	}
	if r.Trouble != "" {
		facts = append(facts, choice("trouble", r.Trouble, copyText, r.Trouble))
	}
	for _, a := range r.Addresses[:min(len(r.Addresses), mostAddresses)] {
		facts = append(facts, choice("copy "+a.Port.String()+" "+a.Public, "Copy "+a.Public+" (port "+a.Port.String()+")", copyText, a.Public))
	}
	if more := len(r.Addresses) - mostAddresses; more > 0 {
		facts = append(facts, choice("more", fmt.Sprintf("and %d more ports (copy the command that lists them)", more), copyText, "distributed-agent rentals"))
	}
	end := choice("end", "End this rental now: the renter loses it", endRental, string(r.ID))
	end.off = r.State == rental.Stopping
	return append(facts, end)
}

func describeGPUs(gpus []rental.GPU, s agent.Status) string {
	if len(gpus) == 0 {
		return "No GPU"
	}
	words := make([]string, len(gpus))
	for i, gpu := range gpus {
		words[i] = fmt.Sprint("GPU ", gpu.Index)
		if model := modelOf(gpu, s); model != "" {
			words[i] += ": " + model
		}
	}
	return strings.Join(words, "; ")
}

func modelOf(gpu rental.GPU, s agent.Status) string {
	if s.Hardware == nil {
		return ""
	}
	for _, known := range s.Hardware.GPUs {
		if known.UUID == gpu.UUID {
			return known.Model
		}
	}
	return ""
}
