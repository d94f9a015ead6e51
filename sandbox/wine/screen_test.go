//go:build wine

package wine

import (
	"bufio"
	"bytes"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/distributedcompute/host-agent/assets"
)

const (
	width, height = 1024, 600
	// Wine's taskbar, the corner of it where icons are.
	cornerWidth, cornerHeight = 200, 40
)

// open gives the session a screen, with Wine's desktop and its taskbar on it. Every program started
// afterwards is on that desktop. Its Explorer runs a program, if one is named.
func (w *world) open(program ...string) {
	w.t.Helper()
	number, ours, err := os.Pipe()
	w.must(err)
	defer number.Close()
	server := exec.Command("Xvfb", "-displayfd", "3", "-noreset", "-nolisten", "tcp", "-screen", "0", "1024x600x24")
	server.ExtraFiles = []*os.File{ours}
	w.must(server.Start())
	w.t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	ours.Close()
	display, err := bufio.NewReader(number).ReadString('\n')
	w.must(err)
	w.screen = true
	w.environ = append(w.environ, "DISPLAY=:"+strings.TrimSpace(display))

	w.must(shared.boot()) // a desktop of a test before would still be there, on a screen that has gone
	// By its name Wine knows that this desktop wants a taskbar.
	w.succeeds("reg", "add", `HKCU\Software\Wine\Explorer`, "/v", "Desktop", "/d", "shell", "/f")
	w.succeeds("reg", "add", `HKCU\Software\Wine\Explorer\Desktops`, "/v", "shell", "/d", "1024x600", "/f")
	w.start("explorer", append([]string{"/desktop=shell,1024x600"}, program...)...)
	black := color.RGBA{A: 255}
	w.eventually("Wine's desktop is on the screen", func() bool {
		return color.RGBAModel.Convert(w.picture().At(width/2, height/2)) != black
	})
}

// picture is what the screen shows.
func (w *world) picture() image.Image {
	w.t.Helper()
	cmd := exec.Command("import", "-window", "root", "png:-")
	cmd.Env = append(os.Environ(), w.environ...)
	shot, err := cmd.Output()
	w.must(err)
	picture, err := png.Decode(bytes.NewReader(shot))
	w.must(err)
	return picture
}

// shows reports whether the taskbar shows the icon of a state: enough of the colour that no other state's has.
func (w *world) shows(state assets.State) bool {
	w.t.Helper()
	colour := colourOf(w, state)
	picture := w.picture()
	n := 0
	for x := width - cornerWidth; x < width; x++ {
		for y := height - cornerHeight; y < height; y++ {
			if near(colour, color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA)) {
				n++
			}
		}
	}
	return n > 40 // of some 100 in an icon of 16 pixels square
}

// colourOf is the colour that most of a state's picture has.
func colourOf(w *world, state assets.State) (colour color.RGBA) {
	w.t.Helper()
	picture, err := png.Decode(bytes.NewReader(assets.Icon(state)))
	w.must(err)
	seen := map[color.RGBA]int{}
	bounds := picture.Bounds()
	for x := bounds.Min.X; x < bounds.Max.X; x++ {
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			c := color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA)
			if seen[c]++; c.A == 255 && seen[c] > seen[colour] {
				colour = c
			}
		}
	}
	return colour
}

func near(a, b color.RGBA) bool {
	const slack = 8
	alike := func(a, b uint8) bool { return max(a, b)-min(a, b) <= slack }
	return alike(a.R, b.R) && alike(a.G, b.G) && alike(a.B, b.B)
}

// keep puts what the screen shows into the directory WINE_PICTURES, where that is set.
func (w *world) keep() {
	w.t.Helper()
	dir := os.Getenv("WINE_PICTURES")
	if dir == "" || !w.screen {
		return
	}
	var b bytes.Buffer
	w.must(png.Encode(&b, w.picture()))
	w.must(os.WriteFile(filepath.Join(dir, w.t.Name()+".png"), b.Bytes(), 0o600))
}
