package main

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/distributedcompute/host-agent/core/rental"
)

func (c *cli) imagesCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List the images that rentals have brought",
		Args:  noSuchCommand,
		RunE: do(func(ctx context.Context, _ []string) error {
			return c.ask(func(client *agentClient) error {
				cache, err := client.Images(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return c.printJSON(cache)
				}
				return writeImages(c.out, cache, time.Now())
			})
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(c.pruneImagesCommand())
	return cmd
}

func (c *cli) pruneImagesCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove the images that no rental uses, but those of images.keep",
		Args:  cobra.NoArgs,
		RunE: do(func(ctx context.Context, _ []string) error {
			return c.ask(func(client *agentClient) error {
				pruned, err := client.PruneImages(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return c.printJSON(pruned)
				}
				for _, image := range pruned.Images {
					c.println("removed %s", plain(image.Reference))
				}
				c.println("%s removed, %s freed", plural(len(pruned.Images), "image"), inBytes(pruned.FreedBytes))
				return nil
			})
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// writeImages lists images, and what they may take.
func writeImages(w io.Writer, cache rental.ImageCache, now time.Time) error {
	unused := int64(0)
	t := newTable(w)
	if len(cache.Images) > 0 {
		t.row("IMAGE", "DIGEST", "SIZE", "LAST USED", "IS")
	}
	for _, image := range cache.Images {
		if !image.InUse {
			unused += image.SizeBytes
		}
		t.row(image.Reference, shortDigest(image.Digest), inBytes(image.SizeBytes), clock(image.LastUsed, now), standing(image))
	}
	limit := none
	if cache.CapBytes > 0 {
		limit = inBytes(cache.CapBytes)
	}
	t.row(plural(len(cache.Images), "image") + ", " + inBytes(unused) + " not in use, of which at most " + limit + " stay")
	return t.flush()
}

// shortDigest is the part of a digest that people compare.
func shortDigest(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(len(hex), 12)]
}

// standing says in words what keeps an image or lets it go.
func standing(image rental.CachedImage) string {
	var words []string
	for _, is := range []struct {
		so   bool
		word string
	}{{image.InUse, "in use"}, {image.Kept, "kept"}, {image.Private, "private"}} {
		if is.so {
			words = append(words, is.word)
		}
	}
	if len(words) == 0 {
		return none
	}
	return strings.Join(words, ", ")
}
