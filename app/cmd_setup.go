package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/agent"
	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/control"
	"github.com/distributedcompute/host-agent/core/desktop"
	"github.com/distributedcompute/host-agent/core/keyring"
	"github.com/distributedcompute/host-agent/core/secret"
)

const addressKey = "backend.url"

// setup is what the setup command was asked for.
type setup struct {
	keyStdin, tokenStdin bool
	tokenFile            string
	how                  signInFlags
}

func (c *cli) setupCommand() *cobra.Command {
	var s setup
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Sign this host in and write a first agent.yaml",
		Long: `setup makes this machine a host: it signs in at the marketplace in your browser, stores the host key
that comes of it, and asks whether the agent is to start when you log in.
With --backend it also writes a first agent.yaml where there is none.

  distributed-agent setup --backend wss://…                                  sign in in the browser
  distributed-agent setup --device                                           with a code on another device
  distributed-agent setup --enroll-token-file token.txt                      unattended, for many machines
  distributed-agent setup --api-key-stdin < key.txt                          with a host key of your dashboard`,
		Args: atMostOne("api-key-stdin", "enroll-token-file", "enroll-token-stdin", "device"),
		RunE: do(func(ctx context.Context, _ []string) error { return c.setup(ctx, s) }),
	}
	flags := cmd.Flags()
	flags.BoolVar(&s.keyStdin, "api-key-stdin", false, "read a host key from standard input")
	flags.StringVar(&s.tokenFile, "enroll-token-file", "", "enrol with the token in this file")
	flags.BoolVar(&s.tokenStdin, "enroll-token-stdin", false, "enrol with a token from standard input")
	s.how.add(cmd)
	c.settingFlag(flags, "backend", addressKey, "address of the marketplace, wss://…, for a first agent.yaml")
	c.settingFlag(flags, "sign-in-issuer", "sign_in.issuer", "address of its sign-in, https://…, for a first agent.yaml")
	c.settingFlag(flags, "sign-in-client", "sign_in.client_id", "this program's name there, for a first agent.yaml")
	c.settingFlag(flags, "dashboard", "dashboard", "address of its pages for hosts, https://…, for a first agent.yaml")
	c.settingFlag(flags, "ca-file", "backend.ca_file", "authorities that may sign the marketplace's certificate (PEM)")
	return cmd
}

func (c *cli) setup(ctx context.Context, s setup) error {
	// What comes from standard input is checked before anything is written.
	var text string
	var err error
	byToken := s.tokenStdin || s.tokenFile != "" && !s.keyStdin
	if s.keyStdin || byToken {
		if text, err = c.readSecret(map[bool]string{true: "", false: s.tokenFile}[s.keyStdin || s.tokenStdin]); err != nil {
			return err
		}
	}
	parse := keyring.Parse
	if byToken {
		parse = keyring.ParseToken
	}
	key, keyErr := parse(text)
	switch {
	case keyErr != nil && s.keyStdin:
		return usagef("standard input: %w", keyErr)
	case keyErr != nil && byToken:
		return &usageError{keyErr}
	}
	told, err := c.storeSettings()
	if err != nil {
		return err
	}
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if told == "" && cfg.Backend.URL == "" {
		told = "the marketplace's address is not set yet: give --backend wss://…, or set backend.url in agent.yaml"
	}
	switch {
	case s.keyStdin:
		err = c.store(ctx, cfg, key)
	case cfg.Backend.URL == "":
		return usagef("%s", told)
	case byToken:
		err = c.enrol(ctx, cfg, key)
	default:
		if err = c.signIn(ctx, cfg, s.how); err == nil {
			c.askAutostart(ctx)
		}
	}
	if err != nil {
		return err
	}
	if told != "" {
		c.println("%s", told)
	}
	return c.useKey(ctx, cfg)
}

func (c *cli) store(ctx context.Context, cfg *config.Config, key secret.String) error {
	own, err := c.ownAccount(cfg)
	if err == nil {
		err = own.Store(ctx, key)
	}
	if err != nil {
		return err
	}
	c.tellKept(own.Info())
	return nil
}

func (c *cli) enrol(ctx context.Context, cfg *config.Config, token secret.String) error {
	own, err := c.ownAccount(cfg)
	if err == nil {
		err = own.Enrol(ctx, token)
	}
	if err != nil {
		return err
	}
	c.tellSignedIn(own.Info())
	return nil
}

// storeSettings writes a first agent.yaml where settings are given, and tells what came of it.
func (c *cli) storeSettings() (told string, err error) {
	given := slices.DeleteFunc(slices.Clone(c.flags), func(f config.Flag) bool { return f.Key == "state_dir" })
	if !slices.ContainsFunc(given, func(f config.Flag) bool { return f.Key == addressKey }) {
		return "", nil
	}
	wrote, err := c.sources().WriteFirst()
	if err != nil {
		return "", &usageError{err}
	}
	if wrote != "" {
		return "a first configuration is in " + wrote, nil
	}
	kept := c.sources()
	kept.Flags = slices.DeleteFunc(slices.Clone(c.flags), func(f config.Flag) bool { return f.Key == addressKey })
	cfg, err := config.Load(kept)
	if err != nil {
		return "", &usageError{err}
	}
	address := given[slices.IndexFunc(given, func(f config.Flag) bool { return f.Key == addressKey })].Value
	if cfg.Backend.URL == address {
		return "", nil
	}
	return "", usagef("%s names another marketplace, %s, and stays as it is: change its backend.url and sign_in to those of %s, or name another file with --config", cfg.File, cfg.Backend.URL, address)
}

// askAutostart asks once whether the agent is to start at login, where somebody can answer. The host is
// signed in whatever comes of it.
func (c *cli) askAutostart(ctx context.Context) {
	if !isTerminal(c.in) || !isTerminal(c.out) || desktop.Available() != nil {
		return
	}
	autostart, err := c.autostart()
	var state desktop.State
	if err == nil {
		state, err = autostart.State(ctx)
	}
	if err == nil && (state.On || state.Blocked != "") {
		return
	}
	if err == nil {
		fmt.Fprint(c.out, "start the agent when you log in? [Y/n] ")
		answer, unread := bufio.NewReader(c.in).ReadString('\n')
		if unread != nil { // nobody answers: it can be switched on later
			c.println("")
			return
		}
		if word := strings.ToLower(strings.TrimSpace(answer)); !strings.HasPrefix(cmp.Or(word, "y"), "y") {
			c.println("it does not; to change that: distributed-agent autostart on")
			return
		}
		err = autostart.Enable(ctx)
	}
	if err == nil {
		err = c.tellAutostart(ctx, autostart)
	}
	if err != nil {
		c.println("it does not start at login: %v", err)
	}
}

// useKey has a running agent try the key at once, and says which key counts where it is another.
func (c *cli) useKey(ctx context.Context, cfg *config.Config) error {
	client := control.NewClient(cfg.StateDir, buildVersion().Version)
	status, err := client.Status(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		next := "distributed-agent start"
		if desktop.Available() == nil {
			next = "distributed-agent"
		}
		if c.configFile != "" {
			next += " --config '" + c.configFile + "'"
		}
		c.println("next: %s", next)
		return nil
	}
	if err == nil {
		err = client.Retry(ctx)
	}
	if err == nil && !status.Backend.Connected {
		status, err = looked(ctx, client, status)
	}
	if err != nil {
		return fmt.Errorf("telling the running agent of the new key: %w", err)
	}
	if problem := status.Account.Problem; problem != "" {
		c.println("the running agent (pid %d) says: %s", status.PID, plain(problem))
		return nil
	}
	c.println("the running agent (pid %d) signs on with it next, at once where it waits; see: distributed-agent status", status.PID)
	return nil
}

// looked waits a moment until the agent has looked for its key again, and seen what goes before it.
func looked(ctx context.Context, client *control.Client, before agent.Status) (agent.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for status, err := range client.Watch(ctx) {
		if err != nil {
			return before, err
		}
		if status.Account.Problem != before.Account.Problem || status.Account.KeySource != before.Account.KeySource {
			return status, nil
		}
	}
	return before, nil
}
