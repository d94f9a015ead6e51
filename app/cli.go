package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/config"
	"github.com/distributedcompute/host-agent/core/control"
	"github.com/distributedcompute/host-agent/core/desktop"
)

// cli is one invocation of the program.
type cli struct {
	in          io.Reader
	out, errOut io.Writer
	environ     []string
	configFile  string
	flags       []config.Flag // settings given on the command line
	began       bool          // the arguments were understood
	unwritten   error         // why the output is not complete
}

const longHelp = `distributed-agent rents out this machine's GPUs on the DistributedCompute marketplace.

  distributed-agent setup     sign in at the marketplace, and start at login if you like
  distributed-agent           show the icon in the tray, and run the agent
  distributed-agent start     run the agent until you stop it; --headless without an icon
  distributed-agent status    what the machine is doing

Exit codes: 0 ok, 1 failed, 2 usage, 3 already running, 4 not running, 5 sign-in needed,
6 Docker unavailable.`

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:              "distributed-agent",
		Short:            "Rent out this machine's GPUs",
		Long:             longHelp,
		SilenceErrors:    true,
		SilenceUsage:     true,
		PersistentPreRun: func(*cobra.Command, []string) { c.began = true },
	}
	group(root)
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if desktop.Available() != nil {
			return cmd.Help()
		}
		return c.tray(cmd.Context())
	}
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.errOut)
	root.PersistentFlags().StringVar(&c.configFile, "config", "", "agent.yaml to read (default: in the user's configuration directory)")
	c.settingFlag(root.PersistentFlags(), "state-dir", "state_dir", "directory of the agent's state")
	root.AddCommand(
		c.setupCommand(), c.startCommand(), c.trayCommand(), c.statusCommand(), c.doctorCommand(), c.stopCommand(),
		c.pauseCommand(), c.resumeCommand(), c.drainCommand(),
		c.rentalsCommand(), c.logsCommand(), c.imagesCommand(), c.speedtestCommand(),
		c.signInCommand(), c.signOutCommand(), c.rotateKeyCommand(),
		c.autostartCommand(), c.notificationsCommand(), c.dashboardCommand(),
		c.configCommand(), c.auditCommand(), c.versionCommand(),
	)
	return root
}

// do makes a command's RunE of what it does.
func do(act func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return act(cmd.Context(), args) }
}

func (c *cli) sources() config.Sources {
	return config.Sources{File: c.configFile, Environ: c.environ, Flags: c.flags}
}

// config reads the configuration; a mistake in it is one of usage.
func (c *cli) config() (*config.Config, error) {
	cfg, err := config.Load(c.sources())
	if err != nil {
		return nil, &usageError{err}
	}
	return cfg, nil
}

// client speaks to the agent of the configured state directory.
func (c *cli) client() (*agentClient, error) {
	dir, err := config.StateDir(c.sources())
	if err != nil {
		return nil, &usageError{err}
	}
	return &agentClient{control.NewClient(dir, buildVersion().Version), dir}, nil
}

// agentClient adds to the control client what a person is to do when nobody listens.
type agentClient struct {
	*control.Client
	stateDir string
}

// advise names the next step where no agent is running.
func (a *agentClient) advise(err error) error {
	if errors.Is(err, control.ErrNotRunning) {
		return fmt.Errorf("%w with its state in %s; start one with: distributed-agent start", err, a.stateDir)
	}
	return err
}

// ask runs one verb against the running agent.
func (c *cli) ask(verb func(client *agentClient) error) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return client.advise(verb(client))
}

func (c *cli) printJSON(v any) error {
	encoder := json.NewEncoder(c.out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// println writes a line; run tells when that did not succeed.
func (c *cli) println(format string, args ...any) {
	if _, err := fmt.Fprintf(c.out, format+"\n", args...); err != nil {
		c.unwritten = fmt.Errorf("writing the output: %w", err)
	}
}
