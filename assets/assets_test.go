package assets

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	states     = []State{SignedOut, Offline, Online, Rented, Paused, Draining, Problem}
	darkPanel  = color.NRGBA{0x2b, 0x2b, 0x2b, 0xff}
	lightPanel = color.NRGBA{0xf5, 0xf5, 0xf5, 0xff}
	white      = color.NRGBA{0xff, 0xff, 0xff, 0xff}
)

func TestEveryStateHasItsPictures(t *testing.T) {
	want := map[string][]string{"png": nil, "ico": nil, "template": nil, "svg": {"app.svg"}}
	for _, state := range states {
		if len(Icon(state)) == 0 {
			t.Errorf("%s has no icon here", state)
		}
		if got := len(Template(state)) != 0; got != (runtime.GOOS == "darwin") {
			t.Errorf("%s has a template: %v", state, got)
		}
		for folder, suffix := range map[string]string{"png": ".png", "ico": ".ico", "template": ".png", "svg": ".svg"} {
			want[folder] = append(want[folder], string(state)+suffix)
		}
	}
	for folder, want := range want {
		entries, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, entry := range entries {
			got = append(got, entry.Name())
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", folder, diff)
		}
	}
	if Icon("asleep") != nil || Icon("../app") != nil {
		t.Error("an unknown state has an icon")
	}
	if got := decode(t, App()).Bounds().Size(); got != image.Pt(256, 256) {
		t.Errorf("the app's picture is %v", got)
	}
}

// What is embedded is in every download and in memory.
func TestPicturesAreSmall(t *testing.T) {
	for system, patterns := range map[string][]string{
		"windows": {"ico/*", "app.png"}, "darwin": {"png/*", "template/*", "app.png"}, "linux": {"png/*", "app.png"},
	} {
		var total int64
		for _, pattern := range patterns {
			names, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				info, err := os.Stat(name)
				if err != nil {
					t.Fatal(err)
				}
				total += info.Size()
			}
		}
		if total > 60_000 {
			t.Errorf("%s embeds %d bytes", system, total)
		}
	}
}

// Whoever sees no colours must tell any two states apart at the smallest size.
func TestStatesDifferInGreyAt16Pixels(t *testing.T) {
	for _, form := range []struct {
		folder string
		paper  color.NRGBA
		least  float64 // mean difference of a pixel, in levels of 255
	}{
		{"png", darkPanel, 12},
		{"png", lightPanel, 12},
		{"template", white, 15},
	} {
		for i, a := range states {
			for _, b := range states[i+1:] {
				if got := difference(grey16(t, form.folder, a, form.paper), grey16(t, form.folder, b, form.paper)); got < form.least {
					t.Errorf("%s on %v: %s and %s differ by %.1f, want %.0f", form.folder, form.paper, a, b, got, form.least)
				}
			}
		}
	}
}

func TestStatesDifferInColour(t *testing.T) {
	const least = 60 // in the channel that differs most, in levels of 255
	for i, a := range states {
		for _, b := range states[i+1:] {
			p, q := tint(t, a), tint(t, b)
			got := 0
			for _, d := range []int{int(p.R) - int(q.R), int(p.G) - int(q.G), int(p.B) - int(q.B)} {
				got = max(got, d, -d)
			}
			if got < least {
				t.Errorf("%s %v and %s %v differ by %d", a, p, b, q, got)
			}
		}
	}
}

// 3:1 is what WCAG 2.1 asks of signs (1.4.11), here on panels of either kind and of the white mark within.
func TestContrast(t *testing.T) {
	for _, state := range states {
		own := tint(t, state)
		for name, other := range map[string]color.NRGBA{"dark panel": darkPanel, "light panel": lightPanel, "white": white} {
			if got := contrast(own, other); got < 3 {
				t.Errorf("%s, %v: contrast with %s is %.2f", state, own, name, got)
			}
		}
	}
}

// tint is the colour that most of a state's picture has.
func tint(t *testing.T, state State) color.NRGBA {
	t.Helper()
	img := load(t, "png", state)
	count := map[color.NRGBA]int{}
	var most color.NRGBA
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			c := color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA)
			if c.A != 255 {
				continue
			}
			if count[c]++; count[c] > count[most] {
				most = c
			}
		}
	}
	return most
}

// grey16 is a picture as a panel of that colour shows it at 16 pixels, in grey, each pixel the mean of those
// that it stands for.
func grey16(t *testing.T, folder string, state State, panel color.NRGBA) []float64 {
	t.Helper()
	src := load(t, folder, state)
	grey := image.NewGray(src.Bounds())
	draw.Draw(grey, grey.Bounds(), image.NewUniform(panel), image.Point{}, draw.Src)
	draw.Draw(grey, grey.Bounds(), src, image.Point{}, draw.Over)
	const size = 16
	n := src.Bounds().Dx() / size
	if n*size != src.Bounds().Dx() {
		t.Fatalf("%v is no multiple of %d", src.Bounds(), size)
	}
	out := make([]float64, size*size)
	for y := range size * n {
		for x := range size * n {
			out[y/n*size+x/n] += float64(grey.GrayAt(x, y).Y) / float64(n*n)
		}
	}
	return out
}

func difference(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += math.Abs(a[i] - b[i])
	}
	return sum / float64(len(a))
}

// contrast is WCAG 2.1's ratio, from 1 to 21.
func contrast(a, b color.NRGBA) float64 {
	p, q := luminance(a), luminance(b)
	return (max(p, q) + 0.05) / (min(p, q) + 0.05)
}

func luminance(c color.NRGBA) float64 {
	linear := func(level uint8) float64 {
		v := float64(level) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
}

func load(t *testing.T, folder string, state State) image.Image {
	t.Helper()
	data, err := fs.ReadFile(os.DirFS("."), folder+"/"+string(state)+".png")
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, data)
}

func decode(t *testing.T, data []byte) image.Image {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return img
}
