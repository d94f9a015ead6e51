//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/distributedcompute/host-agent/sandbox/engine"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

// gpus are what the NVML stand-in lists; its source tells the form.
const gpus = `GPU-11111111-2222-3333-4444-555555555555|NVIDIA GeForce RTX 4090|24564|512|7|41|70|450|30|8.9|00000000:01:00.0|4|16
GPU-22222222-2222-3333-4444-555555555555|NVIDIA GeForce RTX 4090|24564|512|8|42|70|450|30|8.9|00000000:02:00.0|4|16
`

// story goes through the states of a host.
type story struct {
	dir    string // of everything but the pictures
	album  album
	desk   desktop
	panel  panel
	engine *engine.Engine
	market *market.Market

	icons struct{ light, dark []*image.NRGBA }
	names []string // of the icons
}

func newStory(dir, out string) *story {
	s := &story{dir: dir, album: album{dir: out}, desk: desktop{dir: filepath.Join(dir, "d")}}
	s.panel.desktop = &s.desk
	return s
}

func (s *story) path(name string) string { return filepath.Join(s.dir, name) }

func (s *story) play(ctx context.Context, program string) error {
	if err := s.prepare(ctx, program); err != nil {
		return err
	}
	for _, act := range []step{
		s.signIn, s.online, s.pause, s.problem, s.rent, s.drain, s.offline,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	if err := s.album.keep("icons", strip(s.icons.dark, s.icons.light)); err != nil {
		return err
	}
	return s.album.index(s.names)
}

// prepare opens everything up to an agent that nobody has signed in.
func (s *story) prepare(ctx context.Context, program string) (err error) {
	progress("opening desktop, engine and marketplace")
	if err := s.desk.open(ctx); err != nil {
		return err
	}
	if err := s.panel.open(ctx); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	if err := errors.Join(install(self, s.desk.path("bin/"+openerName)), install(program, s.desk.path("bin/distributed-agent"))); err != nil {
		return err
	}
	if s.engine, err = engine.Start(ctx, engine.Options{Dir: s.path("docker"), FakeNVIDIA: true}); err != nil {
		return err
	}
	if err := s.admit(); err != nil {
		return err
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // where the identity provider's library logs
	s.market, err = market.Open(ctx, market.Options{Dir: s.path("m"), DockerHost: s.engine.Host(), SignedOut: true})
	if err != nil {
		return err
	}
	nvml, err := s.cards(ctx)
	if err != nil {
		return err
	}
	if err := give(s.market.Dir); err != nil {
		return err
	}
	_, err = s.desk.start(owner, []string{"LD_LIBRARY_PATH=" + nvml, "NVML_SHIM=" + nvml}, s.desk.path("bin/distributed-agent"), "tray", "--config", s.market.Config())
	return err
}

// admit lets the owner of the desktop use the engine, as one in the group docker does.
func (s *story) admit() error {
	socket := strings.TrimPrefix(s.engine.Host(), "unix://")
	if err := errors.Join(os.Chmod(filepath.Dir(socket), 0o711), os.Chown(socket, owner, owner)); err != nil {
		return fmt.Errorf("letting the owner of the desktop use the engine: %w", err)
	}
	return nil
}

// cards makes a folder with NVIDIA's library as a machine with two cards has it.
func (s *story) cards(ctx context.Context) (dir string, err error) {
	dir = filepath.Join(s.market.Dir, "nvml")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("making a folder: %w", err)
	}
	out, err := exec.CommandContext(ctx, "gcc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1",
		"-o", filepath.Join(dir, "libnvidia-ml.so.1"), "core/hardware/testdata/nvml/nvml.c").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compiling the NVML stand-in: %w\n%s", err, out)
	}
	return dir, os.WriteFile(filepath.Join(dir, "gpus"), []byte(gpus), 0o600)
}

// step is one of a chapter's.
type step func(ctx context.Context) error

func inTurn(ctx context.Context, steps ...step) error {
	for _, next := range steps {
		if err := next(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) begin(title, words string) step {
	return func(context.Context) error {
		progress("%s", title)
		s.album.begin(title, words)
		return nil
	}
}

func (s *story) says(words string) step {
	return func(ctx context.Context) error { return s.panel.says(ctx, words) }
}

func (s *story) click(labels ...string) step {
	return func(ctx context.Context) error { return s.panel.click(ctx, labels...) }
}

// icon keeps the icon of this moment, on a dark and on a light panel.
func (s *story) icon(name string) step {
	return func(ctx context.Context) error {
		for _, dark := range []bool{true, false} {
			if _, err := s.desk.tool(ctx, "xfconf-query", "-c", "xfce4-panel", "-p", "/panels/dark-mode", "-s", fmt.Sprint(dark)); err != nil {
				return err
			}
			sight, err := s.panel.settles(ctx, "the panel in its other colour", func(sight *image.NRGBA) bool { return light(sight) != dark })
			if err != nil {
				return err
			}
			into := &s.icons.light
			if dark {
				into = &s.icons.dark
			}
			*into = append(*into, iconOf(sight))
		}
		s.names = append(s.names, name)
		return nil
	}
}

func (s *story) tooltip(name string) step {
	return func(ctx context.Context) error {
		sight, err := s.panel.pointed(ctx)
		if err != nil {
			return err
		}
		return s.album.put(name, "tooltip", sight)
	}
}

func (s *story) menu(name string) step {
	return func(ctx context.Context) error {
		sight, err := s.panel.opened(ctx)
		if err != nil {
			return err
		}
		return errors.Join(s.album.put(name, "menu", sight), s.panel.shut(ctx))
	}
}

// submenu keeps the menu with the submenu of the entry that begins so.
func (s *story) submenu(name, label string) step {
	return func(ctx context.Context) error {
		sight, err := s.panel.below(ctx, label)
		if err != nil {
			return err
		}
		return errors.Join(s.album.put(name, "menu with "+label, sight), s.panel.shut(ctx))
	}
}

func (s *story) signIn(ctx context.Context) error {
	return inTurn(
		ctx,
		s.begin("Signed out", "A new host belongs to nobody yet. **Sign in…** opens the marketplace's page in the browser."),
		s.says("Not signed in"),
		s.icon("signed out"),
		s.tooltip("signed-out-tooltip"),
		s.menu("signed-out-menu"),
		s.click("Sign in"),
		s.begin("Signing in", "The page is open in the browser. It can be opened again, or the sign-in be given up."),
		s.says("Waiting for you to sign in"),
		s.tooltip("signing-in-tooltip"),
		s.menu("signing-in-menu"),
		func(ctx context.Context) error {
			address, err := s.desk.page(ctx)
			if err != nil {
				return err
			}
			_, err = s.market.Identity.Visit(ctx, address, s.market.Owner, true)
			return err
		},
	)
}

func (s *story) online(ctx context.Context) error {
	return inTurn(
		ctx,
		s.begin("Online", "The host waits for rentals."),
		s.says(online),
		s.icon("online"),
		s.tooltip("online-tooltip"),
		s.menu("online-menu"),
		s.submenu("online-pause", "Pause"),
		s.submenu("online-account", "Signed in"),
	)
}

// online is what the menu says then.
const online = "Online, ready for rentals"

func (s *story) pause(ctx context.Context) error {
	return inTurn(
		ctx,
		s.begin("Paused", "No new rentals come, for a time or until **Resume**."),
		s.click("Pause", "Until tomorrow"),
		s.says("Paused until"),
		s.icon("paused"),
		s.tooltip("paused-tooltip"),
		s.menu("paused-menu"),
		s.click("Resume"),
		s.says(online),
	)
}

func (s *story) problem(ctx context.Context) error {
	return inTurn(
		ctx,
		s.begin("A problem", "Something keeps rentals away, here an engine that has gone. **Problems** says what it is and what to do."),
		func(context.Context) error { return s.engine.Down() },
		s.says("Docker"),
		s.icon("problem"),
		s.tooltip("problem-tooltip"),
		s.menu("problem-menu"),
		s.submenu("problem-list", "Problems"),
		s.engine.Restart,
		func(context.Context) error { return s.admit() },
		s.says(online),
	)
}

func (s *story) rent(ctx context.Context) error {
	return inTurn(
		ctx,
		s.begin("Rented", "Each rental has a submenu of its own. To quit asks what becomes of what runs."),
		s.order,
		s.says("Rented out: 1 rental"),
		s.says("Today: "+today),
		s.icon("rented"),
		s.tooltip("rented-tooltip"),
		s.menu("rented-menu"),
		s.submenu("rented-rental", "workload"),
		s.submenu("rented-quit", "Quit"),
	)
}

const today = "1.32" // earned, in USD

// order rents the host and tells it a month's earnings: those of some seconds would come to nothing that
// a picture could show.
func (s *story) order(ctx context.Context) error {
	order, err := s.market.Rent(ctx, market.Rent{GPUs: []int{1}, Ports: []string{"22", "8080"}, For: 6 * time.Hour})
	if err != nil {
		return fmt.Errorf("renting: %w", err)
	}
	if _, err := s.market.Backend.WaitState(ctx, order.RentalID, "running"); err != nil {
		return err
	}
	node, err := s.market.Node(ctx, "")
	if err != nil {
		return err
	}
	earned := s.market.Backend.Earnings(node)
	earned.Today, earned.Month, earned.Unpaid, earned.Total = today, "48.90", "48.90", "131.45"
	return s.market.Backend.Send(node, earned)
}

func (s *story) drain(ctx context.Context) error {
	return inTurn(
		ctx,
		s.begin("Draining", "What is rented runs to its end, and nothing new comes."),
		s.click("Drain"),
		s.says("Draining"),
		s.icon("draining"),
		s.tooltip("draining-tooltip"),
		s.menu("draining-menu"),
	)
}

func (s *story) offline(ctx context.Context) error {
	return inTurn(
		ctx,
		s.begin("Offline", "The marketplace cannot be reached. Rentals run on, and the agent tries again by itself."),
		func(context.Context) error { s.market.Backend.Down(); return nil },
		s.says("Offline"),
		s.icon("offline"),
		s.tooltip("offline-tooltip"),
		s.menu("offline-menu"),
		s.submenu("offline-problems", "Problems"),
	)
}

// leave takes everything away.
func (s *story) leave() error {
	var failures []error
	s.panel.close()
	s.desk.close()
	if s.market != nil {
		failures = append(failures, s.market.Close())
	}
	if s.engine != nil {
		failures = append(failures, s.engine.Stop())
	}
	return errors.Join(failures...)
}

// lastSight keeps what is on the screen, if that can be seen still.
func (s *story) lastSight() error {
	ctx, cancel := context.WithTimeout(context.Background(), endsWithin)
	defer cancel()
	sight, err := s.panel.see(ctx)
	if err != nil {
		return nil
	}
	if err := s.album.keep("failed", sight); err != nil {
		return err
	}
	return errors.New("the screen at that moment is in failed.png")
}

// lastWords is the end of the agent's log.
func (s *story) lastWords() string {
	text, err := os.ReadFile(s.desk.path("distributed-agent.log"))
	if err != nil {
		return "the agent has not been started"
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return "the agent's last words:\n" + strings.Join(lines[max(0, len(lines)-15):], "\n")
}
