// Package assets holds the pictures of the agent: its own, and one of each state that a tray can show.
//
// All are one chip. Each state has a colour of its own and, for whoever does not tell colours apart, a mark
// of its own: hollow where the host is not reached, filled with a sign in it where it is. The pictures are
// drawn from svg/ by the command in draw; every system embeds only what it shows.
package assets

//go:generate go run ./draw

// State is what the picture tells of the host.
type State string

// The states, in the order in which a host meets them.
const (
	SignedOut State = "signed-out" // no marketplace account: hollow, a keyhole
	Offline   State = "offline"    // no connection: hollow, struck through
	Online    State = "online"     // ready for a rental: a tick
	Rented    State = "rented"     // a rental runs: a bolt
	Paused    State = "paused"     // no new rentals: two bars
	Draining  State = "draining"   // ends when its rentals have: an arrow down
	Problem   State = "problem"    // needs its owner: an exclamation mark
)

// Icon returns the tray's picture of state in the form that this system's tray takes: a PNG, on Windows an
// ICO of several sizes. It is nil for an unknown state.
func Icon(state State) []byte {
	return read(iconFolder + string(state) + iconSuffix)
}

// Template returns the picture of state as a PNG in black and nothing, which macOS draws in the menu bar's
// own colour. It is nil for an unknown state and on other systems.
func Template(state State) []byte {
	return read("template/" + string(state) + ".png")
}

// App returns the agent's own picture, for notifications and launchers: a PNG of 256 pixels square.
func App() []byte {
	return read("app.png")
}

func read(name string) []byte {
	data, err := pictures.ReadFile(name)
	if err != nil { // embedded files are there or are not
		return nil
	}
	return data
}
