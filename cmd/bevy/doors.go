package main

import (
	"context"
	"net/url"
	"strings"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

// A doorInfo is what --json prints of the door for a service.
type doorInfo struct {
	Endpoint  string          `json:"endpoint"`
	Region    string          `json:"region"`
	AccessKey string          `json:"accessKey"`
	App       string          `json:"app,omitempty"`
	Tables    []listedTable   `json:"tables,omitempty"`
	Buckets   []client.Bucket `json:"buckets,omitempty"`
	Programs  []programLine   `json:"programs"`
	// Undo is how to take back what a program removed.
	Undo string `json:"undo,omitempty"`
}

// A programLine is how a program is called.
type programLine struct {
	Program string `json:"program"`
	Line    string `json:"line"`
}

func (a *app) s3Command() *cobra.Command {
	return a.doorCommand("s3", "Buckets for programs that speak to S3", `Programs for S3 find the folders of the cloud as buckets, and the files in them
as objects; and folders that they make are in the cloud.`, (*app).s3Info)
}

func (a *app) dynamoCommand() *cobra.Command {
	return a.doorCommand("dynamo", "Tables for programs that speak to DynamoDB", `Programs for DynamoDB make tables in the cloud. "bevy table" works with what is
in them.`, (*app).dynamoInfo)
}

// doorCommand makes the command about the door for a service.
func (a *app) doorCommand(name, short, long string, info func(*app, context.Context, *client.Client, *doorInfo) (*table, error)) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Long: long, Args: noSuchWord, RunE: helpOf}
	app := ""
	show := &cobra.Command{
		Use:   "info [flags]",
		Short: "Say where programs find it, and what is there",
		Long:  "Says where programs find it and how to call them, and lists what is there.",
		Example: "bevy " + name + " info\n" +
			"bevy " + name + " info --app shop",
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				e, err := environment(cmd.Context(), c, app)
				if err != nil {
					return err
				}
				i := doorInfo{Endpoint: e.Endpoint, Region: e.Region, AccessKey: e.AccessKey, App: e.App}
				list, err := info(a, cmd.Context(), c, &i)
				if err != nil {
					return err
				}
				return written(a.printDoor(i, list))
			})
		},
	}
	a.appFlag(show, &app)
	cmd.AddCommand(show)
	return cmd
}

func (a *app) printDoor(i doorInfo, list *table) error {
	if a.json {
		return a.printJSON(i)
	}
	of := ""
	if i.App != "" {
		of = " --app " + shellWord(i.App)
	}
	t := &table{}
	t.add("endpoint", i.Endpoint)
	t.add("region", i.Region)
	t.add("access key", i.AccessKey+"  with its secret: bevy env"+of)
	if err := t.write(a.stdout); err != nil {
		return err
	}
	if list != nil {
		if err := a.printLine(""); err != nil {
			return err
		}
		if err := list.write(a.stdout); err != nil {
			return err
		}
	}
	if err := a.printLine("\nafter  eval $(bevy env" + of + ")"); err != nil {
		return err
	}
	t = &table{}
	for _, p := range i.Programs {
		t.add("  "+p.Program, p.Line)
	}
	if err := t.write(a.stdout); err != nil || i.Undo == "" {
		return err
	}
	return a.printLine("\nto undo what a program removed:  " + i.Undo)
}

func (a *app) s3Info(ctx context.Context, c *client.Client, i *doorInfo) (*table, error) {
	var all client.Buckets
	if err := c.Do(ctx, "GET", "/buckets?app="+url.QueryEscape(i.App), nil, &all); err != nil {
		return nil, asked(err, "cannot list the buckets")
	}
	i.Buckets = all.Buckets
	host := strings.TrimPrefix(i.Endpoint, "http://")
	i.Programs = []programLine{
		{"aws", "aws s3 ls"},
		{"aws before 2.13", "aws --endpoint-url " + i.Endpoint + " s3 ls"},
		{"s3cmd", "s3cmd --no-ssl --host=" + host + " --host-bucket=" + host + " ls"},
		{"rclone", "rclone lsd ':s3,provider=Other,env_auth,endpoint=\"" + i.Endpoint + "\":'"},
		{"restic", "restic -r s3:" + i.Endpoint + "/backup init"},
		{"SDKs", "new S3Client({ forcePathStyle: true })"},
	}
	if len(all.Buckets) == 0 {
		return nil, nil
	}
	if i.App == "" {
		i.Undo = "bevy restore " + shellWord(all.Buckets[0].Name+"@10m")
	}
	t := newTable("BUCKET", "FILES", "SIZE", "SINCE")
	t.right[1], t.right[2] = true, true
	for _, b := range all.Buckets {
		since := "-"
		if !b.Created.IsZero() {
			since = b.Created.Local().Format("2006-01-02")
		}
		t.add(escape([]byte(b.Name)), count(uint64(b.Files)), size(uint64(b.Bytes)), since)
	}
	return t, nil
}

func (a *app) dynamoInfo(ctx context.Context, c *client.Client, i *doorInfo) (*table, error) {
	list, err := (&tables{app: a, node: c, of: i.App}).listed(ctx)
	if err != nil {
		return nil, err
	}
	i.Tables = list
	i.Programs = []programLine{
		{"aws", "aws dynamodb list-tables"},
		{"aws before 2.13", "aws --endpoint-url " + i.Endpoint + " dynamodb list-tables"},
		{"SDKs", "new DynamoDBClient({})"},
	}
	if len(list) == 0 {
		return nil, nil
	}
	i.Undo = "bevy table restore " + shellWord(list[0].Name+"@10m") + " --in-place"
	if i.App != "" {
		i.Undo += " --app " + shellWord(i.App)
	}
	return tableOfTables(list), nil
}
