package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) appsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apps",
		Short: "Apps, whose buckets and tables are apart, and their access keys",
		Long: `An app has buckets and tables of its own, and access keys by which programs
reach these and no others. What is in no app is your own.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	keys := &cobra.Command{
		Use:   "keys",
		Short: "Access keys, by which programs come in",
		Long: `An access key lets a program in at the doors of a node: "bevy env" has one that
may do everything. They are known on all machines of the cloud, and what is
taken back is over on each as soon as it hears of it.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	keys.AddCommand(a.keysLsCommand(), a.keysAddCommand(), a.keysRmCommand())
	cmd.AddCommand(a.appsLsCommand(), a.appsAddCommand(), a.appsRmCommand(), keys)
	return cmd
}

func (a *app) appsLsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List the apps",
		Example: `bevy apps ls`,
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				apps, err := listApps(cmd.Context(), c)
				if err != nil {
					return err
				}
				t := newTable("APP", "KEYS", "TABLES", "BUCKETS", "SINCE")
				t.right[1], t.right[2], t.right[3] = true, true, true
				for _, app := range apps {
					if a.json {
						if err := a.printJSON(app); err != nil {
							return written(err)
						}
						continue
					}
					name, since := app.Name, app.Created.Local().Format("2006-01-02")
					if name == "" {
						name, since = "(your own)", "-"
					}
					t.add(name, strconv.Itoa(app.Keys), strconv.Itoa(app.Tables), strconv.Itoa(app.Buckets), since)
				}
				if a.json {
					return nil
				}
				return written(t.write(a.stdout))
			})
		},
	}
}

func listApps(ctx context.Context, c *client.Client) ([]client.App, error) {
	var out client.Apps
	err := c.Do(ctx, "GET", "/apps", nil, &out)
	return out.Apps, asked(err, "cannot list the apps")
}

func (a *app) appsAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "add <app>",
		Short:   "Make an app",
		Example: `bevy apps add shop`,
		Args:    wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				var made client.App
				if err := c.Do(cmd.Context(), "POST", "/apps", client.AddApp{Name: args[0]}, &made); err != nil {
					return asked(err, "cannot make the app %q", args[0])
				}
				if a.json {
					return written(a.printJSON(made))
				}
				a.say("made the app %s\nnext:  eval $(bevy env --app %s)\nundo:  bevy apps rm %s --yes", made.Name, shellWord(made.Name), shellWord(made.Name))
				return nil
			})
		},
	}
}

func (a *app) appsRmCommand() *cobra.Command {
	var sure consent
	cmd := &cobra.Command{
		Use:   "rm <app> [flags]",
		Short: "Remove an app with its keys, tables and buckets",
		Long: `Removes an app on all machines. Its keys let nobody in any more, and its tables
and buckets are not shown any more.`,
		Example:           `bevy apps rm shop`,
		Args:              wants(1, 1),
		ValidArgsFunction: a.completeFirst(a.completeApp),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error { return a.removeApp(cmd.Context(), c, args[0], sure) })
		},
	}
	sure.flags(cmd)
	return cmd
}

func (a *app) removeApp(ctx context.Context, c *client.Client, name string, sure consent) error {
	apps, err := listApps(ctx, c)
	if err != nil {
		return err
	}
	for _, app := range apps {
		if app.Name != name || name == "" {
			continue
		}
		plan := fmt.Sprintf("the app %s would be removed, with %s, %s and %s", name,
			plural(uint64(app.Keys), "access key"), plural(uint64(app.Tables), "table"), plural(uint64(app.Buckets), "bucket"))
		if ok, err := a.confirm(sure, "bevy apps rm "+shellWord(name), plan); !ok {
			return err
		}
		if err := c.Do(ctx, "DELETE", "/apps/"+url.PathEscape(name), nil, nil); err != nil {
			return asked(err, "cannot remove the app %q", name)
		}
		a.say("the app %s was removed\nundo:  bevy removed back %s, but for its access keys", name, shellWord("app:"+name))
		return nil
	}
	return &failure{code: codeNotFound, what: fmt.Sprintf("there is no app %q", name), cause: "none of the cloud has that name", try: "bevy apps ls"}
}

func (a *app) keysLsCommand() *cobra.Command {
	app := ""
	cmd := &cobra.Command{
		Use:   "ls [flags]",
		Short: "List the access keys of an app",
		Example: `bevy apps keys ls
bevy apps keys ls --app shop`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				keys, err := accessKeys(cmd.Context(), c, app)
				if err != nil {
					return err
				}
				t := newTable("KEY", "RIGHTS", "UNTIL", "NOTE")
				for _, k := range keys {
					if a.json {
						if err := a.printJSON(k); err != nil {
							return written(err)
						}
						continue
					}
					t.add(k.ID, rightsText(k.Rights), untilText(k), escape([]byte(k.Note)))
				}
				switch {
				case a.json:
					return nil
				case len(keys) == 0:
					a.say("no access keys\nnext:  bevy env, which makes one")
					return nil
				}
				return written(t.write(a.stdout))
			})
		},
	}
	a.appFlag(cmd, &app)
	return cmd
}

func accessKeys(ctx context.Context, c *client.Client, app string) ([]client.AccessKey, error) {
	var out client.AccessKeys
	err := c.Do(ctx, "GET", "/access-keys?app="+url.QueryEscape(app), nil, &out)
	return out.Keys, asked(err, "cannot list the access keys")
}

// rightsText are rights as flags say them.
func rightsText(rights []client.Right) string {
	var words []string
	for _, r := range rights {
		verb, name := "read", r.Name
		if r.Write {
			verb = "write"
		}
		if r.Service != "" {
			name = r.Service + ":" + name
		}
		words = append(words, verb+" "+name)
	}
	return strings.Join(words, ", ")
}

func untilText(k client.AccessKey) string {
	switch {
	case k.Until.IsZero():
		return "-"
	case k.Over:
		return "is over"
	}
	return k.Until.Local().Format("2006-01-02 15:04")
}

func (a *app) keysAddCommand() *cobra.Command {
	app, until, note := "", "", ""
	var read, write []string
	cmd := &cobra.Command{
		Use:   "add [flags]",
		Short: "Make an access key",
		Long: `Makes an access key, and prints it with its secret as variables, as "bevy env"
does. Without --read and --write it may do everything in the app. These name
buckets and tables: "photos", "s3:photos", "dynamodb:orders-*", where * stands
for any letters. Who may write may read, too.`,
		Example: `bevy apps keys add --app shop --read 's3:*' --write dynamodb:orders
bevy apps keys add --note camera --write s3:camera --until 30d`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in := client.AddAccessKey{App: app, Note: note}
			for _, name := range read {
				in.Rights = append(in.Rights, parseRight(name, false))
			}
			for _, name := range write {
				in.Rights = append(in.Rights, parseRight(name, true))
			}
			var err error
			if in.Until, err = a.parseUntil(until); err != nil {
				return err
			}
			return a.withNode(cmd.Context(), func(c *client.Client) error { return a.addKey(cmd.Context(), c, in) })
		},
	}
	a.appFlag(cmd, &app)
	cmd.Flags().StringArrayVar(&read, "read", nil, "let it read buckets and tables of this `name`")
	cmd.Flags().StringArrayVar(&write, "write", nil, "let it read and write those of this `name`")
	cmd.Flags().StringVar(&until, "until", "", "let it end at this `time`: 30d, 12h, 2027-01-31, 2027-01-31T12:00:00Z")
	cmd.Flags().StringVar(&note, "note", "", "keep this `text` with it")
	return cmd
}

func parseRight(name string, write bool) client.Right {
	service, rest, ok := strings.Cut(name, ":")
	if !ok {
		service, rest = "", name
	}
	return client.Right{Service: service, Name: rest, Write: write}
}

// parseUntil reads a time that is yet to come.
func (a *app) parseUntil(text string) (t time.Time, err error) {
	now := a.clock.Now()
	if text == "" {
		return t, nil
	}
	d, derr := time.ParseDuration(text)
	if n, ok := strings.CutSuffix(text, "d"); ok {
		var days float64
		days, derr = strconv.ParseFloat(n, 64)
		d = time.Duration(days * float64(24*time.Hour))
	}
	switch {
	case derr == nil:
		t = now.Add(d)
	default:
		if t, err = time.ParseInLocation("2006-01-02", text, time.Local); err != nil {
			t, err = time.Parse(time.RFC3339, text)
		}
	}
	if err != nil || !t.After(now) {
		return t, wrong("--until 30d", "it is no time, or has passed", "wrong time %q", text)
	}
	return t.UTC(), nil
}

func (a *app) addKey(ctx context.Context, c *client.Client, in client.AddAccessKey) error {
	var made client.AccessKey
	if err := c.Do(ctx, "POST", "/access-keys", in, &made); err != nil {
		return asked(err, "cannot make the access key")
	}
	if a.json {
		return written(a.printJSON(made))
	}
	for _, line := range []string{"export AWS_ACCESS_KEY_ID=" + made.ID, "export AWS_SECRET_ACCESS_KEY=" + made.Secret} {
		if err := a.printLine(line); err != nil {
			return written(err)
		}
	}
	a.say("made an access key: %s. The secret is not shown again\nundo:  bevy apps keys rm %s --yes", rightsText(made.Rights), made.ID)
	return nil
}

func (a *app) keysRmCommand() *cobra.Command {
	var sure consent
	cmd := &cobra.Command{
		Use:   "rm <key> [flags]",
		Short: "Take an access key back, for good",
		Long: `Takes an access key back: nobody is let in by it any more. That can't be undone;
who needs one gets another. <key> is its name, which begins with BV.`,
		Example:           `bevy apps keys rm BVSF27R7LFCYDR7IKXFO`,
		Args:              wants(1, 1),
		ValidArgsFunction: a.completeFirst(a.completeKey),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				if ok, err := a.confirm(sure, "bevy apps keys rm "+shellWord(args[0]), "programs with the access key "+args[0]+" would not be let in any more"); !ok {
					return err
				}
				if err := c.Do(cmd.Context(), "DELETE", "/access-keys/"+url.PathEscape(args[0]), nil, nil); err != nil {
					return asked(err, "cannot take back the access key %s", args[0])
				}
				a.say("the access key %s lets nobody in any more", args[0])
				return nil
			})
		},
	}
	sure.flags(cmd)
	return cmd
}

// completeKey offers the access keys of all apps.
func (a *app) completeKey(cmd *cobra.Command, _ []string, _ string) (words []string, _ cobra.ShellCompDirective) {
	_ = a.withNode(contextOf(cmd), func(c *client.Client) error {
		apps, err := listApps(contextOf(cmd), c)
		for _, app := range apps {
			keys, _ := accessKeys(contextOf(cmd), c, app.Name)
			for _, k := range keys {
				words = append(words, fmt.Sprintf("%s\t%s", k.ID, k.Note))
			}
		}
		return err
	})
	return words, cobra.ShellCompDirectiveNoFileComp
}

// completeFirst offers words for the first word of a command only.
func (a *app) completeFirst(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(cmd, args, word)
	}
}
