package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/distributedcompute/host-agent/core/config"
)

// settingFlags are the settings that have a flag of their own where the configuration is read.
var settingFlags = []struct{ flag, key, usage string }{
	{"backend", "backend.url", "address of the marketplace, wss://…"},
	{"ca-file", "backend.ca_file", "authorities that may sign the marketplace's certificate (PEM)"},
	{"node-id", "node_id", "node this machine is"},
	{"key-file", "api_key_file", "file that holds the host key"},
	{"docker-host", "docker.host", "Docker Engine, unix:///… or npipe:////…"},
	{"gpus", "offer.gpus", "GPUs to rent out: all, none, or numbers such as 0,1"},
	{"cpu-cores", "offer.cpu_cores", "CPU threads to rent out; 0: automatic"},
	{"ram", "offer.ram", "memory to rent out, such as 28g"},
	{"disk", "offer.disk", "disk to rent out, such as 400g"},
	{"log-level", "log.level", "debug, info, warn or error"},
	{"log-format", "log.format", "text or json"},
}

func (c *cli) addSettingFlags(cmd *cobra.Command) {
	for _, s := range settingFlags {
		c.settingFlag(cmd.Flags(), s.flag, s.key, s.usage)
	}
}

// allowOldFlag adds the switch for who knows what his engine has; there is none that turns it off.
func (c *cli) allowOldFlag(flags *pflag.FlagSet) {
	const name = "unsafe-allow-old-engine"
	flags.BoolFunc(name, "take rentals though this host's versions have known escapes; the marketplace is told", func(value string) error {
		c.flags = append(c.flags, config.Flag{Key: "unsafe_allow_old_engine", Name: "--" + name, Value: value})
		return nil
	})
}

// settingFlag adds a flag that gives a setting its value; the value is checked with all others.
func (c *cli) settingFlag(flags *pflag.FlagSet, name, key, usage string) {
	flags.Func(name, usage, func(value string) error {
		c.flags = append(c.flags, config.Flag{Key: key, Name: "--" + name, Value: value})
		return nil
	})
}
