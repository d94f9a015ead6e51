package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/hardware"
)

func (c *cli) speedtestCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "speedtest",
		Short: "Measure the network against the configured server",
		Args:  cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			return c.ask(func(client *agentClient) error {
				network, err := client.SpeedTest(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return c.printJSON(network)
				}
				c.println("%s", describeNetwork(network))
				return nil
			})
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func describeNetwork(n hardware.Network) string {
	return fmt.Sprintf("down %s Mbit/s, up %s Mbit/s, latency %s ms, jitter %s ms (%s)",
		show(n.DownloadMbps, "%.1f"), show(n.UploadMbps, "%.1f"), show(n.LatencyMS, "%.1f"), show(n.JitterMS, "%.1f"), n.Server)
}
