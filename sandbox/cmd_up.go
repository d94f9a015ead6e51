package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/sandbox/admin"
	"github.com/distributedcompute/host-agent/sandbox/market"
)

func newUp(at *place) *cobra.Command {
	var (
		options market.Options
		verbose bool
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a marketplace until interrupted",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			options.Dir = at.dir
			if verbose {
				options.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
				options.RelayLog = os.Stderr
				slog.SetDefault(options.Log)
			} else {
				slog.SetDefault(slog.New(slog.DiscardHandler)) // where the identity provider's library logs
			}
			return up(cmd.Context(), at, options)
		},
	}
	cmd.Flags().StringVar(&options.DockerHost, "docker-host", "", "engine that the agent is told to use, such as unix:///run/user/1000/docker.sock")
	cmd.Flags().IntVar(&options.HeartbeatIntervalS, "heartbeat", 5, "seconds between heartbeats, 1 to 60")
	cmd.Flags().BoolVar(&options.SeedOnly, "seed-only", false, "be a backend that knows heartbeat, start_instance, stop_instance and drain_node alone")
	cmd.Flags().BoolVar(&options.SignedOut, "signed-out", false, "give the agent no host key: it has to sign in or enrol")
	cmd.Flags().BoolVar(&options.Device, "device", true, "let agents sign in by a code on another device")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log what backend and relay do")
	return cmd
}

func up(ctx context.Context, at *place, options market.Options) (err error) {
	listener, err := admin.Listen(at.socket())
	if err != nil {
		return err
	}
	defer listener.Close()
	m, err := market.Open(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	fmt.Printf(`The marketplace is open: backend %s, relay %s, registry %s.
Hosts sign in with the account %s, password %s, at %s.
The owner's dashboard is %s (a browser warns of the sandbox's own certificates, here and there).
In another terminal, start an agent:  %s
In a third one, rent from it:         %s
Ctrl-C closes the marketplace.
`, m.Backend.URL(), m.Relay.Addr(), m.Registry.Addr(), m.Owner.Email, m.Owner.Password.Reveal(), m.Identity.Issuer(), m.Backend.Dashboard(), startWith(at, options, m.Config()), at.command("rent"))
	return admin.Serve(ctx, m, listener)
}

// startWith is how an agent is started, signed in before where it has no key yet.
func startWith(at *place, options market.Options, config string) string {
	start := fmt.Sprintf("%s start --headless --config '%s'", at.agent(), config)
	if options.SignedOut {
		start = fmt.Sprintf("%s sign-in --config '%s' && %s", at.agent(), config, start)
	}
	return start
}
