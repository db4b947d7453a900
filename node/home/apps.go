package home

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/node"
)

// maxTableCall bounds the body of an operation of DynamoDB.
const maxTableCall = 16 << 20

// appRoutes hangs into the node what it can be asked about apps.
func (h *Home) appRoutes() {
	tables := node.Raw("POST", "/dynamodb/{operation}", "Do an operation of DynamoDB, whose JSON is that of its own", "application/json", "application/json", h.callTables)
	tables.MaxBody = maxTableCall
	h.node.Route(
		node.Call("GET", "/apps", "List the apps", h.getApps),
		node.Call("POST", "/apps", "Make an app", h.addApp),
		node.Call("DELETE", "/apps/{app}", "Remove an app with its keys, tables and buckets", h.dropApp),
		node.Call("GET", "/access-keys", "List the access keys of an app", h.getAccessKeys),
		node.Call("POST", "/access-keys", "Make an access key", h.addAccessKey),
		node.Call("DELETE", "/access-keys/{key}", "Take an access key back, for good", h.dropAccessKey),
		node.Call("POST", "/environment", "Tell what programs for AWS have to know; a key is made if there is none", h.environment),
		node.Call("GET", "/buckets", "List the buckets of an app", h.getBuckets),
		tables,
	)
}

func noApp(name string) error {
	return &client.Error{Code: client.CodeNotFound, Message: fmt.Sprintf("there is no app %q", name), Cause: "none of the cloud has that name", Try: "bevy apps ls"}
}

// toldByApps gives errors about apps their codes.
func toldByApps(err error, name string) error {
	switch {
	case errors.Is(err, cloud.ErrNoApp):
		return noApp(name)
	case errors.Is(err, cloud.ErrExists):
		return (&client.Error{Code: client.CodeConflict, Message: fmt.Sprintf("cannot make the app %q", name), Cause: "there is one of that name already", Try: "another name"}).Because(err)
	case errors.Is(err, cloud.ErrName):
		return (&client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%q can't be the name of an app", name), Cause: "it has 1 to 255 bytes that can be printed, and no slash", Try: "another name"}).Because(err)
	case errors.Is(err, cloud.ErrNoAppKey):
		return (&client.Error{Code: client.CodeNotFound, Message: "there is no such access key", Cause: "none has that name, or it was taken back already", Try: "bevy apps keys ls"}).Because(err)
	case errors.Is(err, cloud.ErrRights):
		return (&client.Error{Code: client.CodeUsage, Message: "cannot make the access key", Cause: err.Error(), Try: "bevy apps keys add --help"}).Because(err)
	}
	return err
}

func (h *Home) getApps(ctx context.Context, _ node.None) (out client.Apps, err error) {
	err = h.use(ctx, func(s *session) error {
		for _, a := range s.cloud.Apps() {
			app := client.App{Name: a.Name, Created: a.Created, Keys: len(s.cloud.AppKeys(a.Name))}
			for _, kind := range []cloud.Kind{cloud.Table, cloud.Folder} {
				for _, info := range s.cloud.Spaces(kind) {
					switch {
					case info.App != a.Name:
					case kind == cloud.Folder:
						app.Buckets++
					case info.Name != catalog:
						app.Tables++
					}
				}
			}
			out.Apps = append(out.Apps, app)
		}
		return nil
	})
	return out, err
}

// catalog is the tree of the tables themselves, which is none.
const catalog = "catalog"

func (h *Home) addApp(ctx context.Context, in client.AddApp) (out client.App, err error) {
	err = h.use(ctx, func(s *session) error {
		if err := s.cloud.MakeApp(ctx, in.Name); err != nil {
			return toldByApps(err, in.Name)
		}
		for _, a := range s.cloud.Apps() {
			if a.Name == in.Name {
				out = client.App{Name: a.Name, Created: a.Created}
			}
		}
		h.node.Say("the app %s was made", in.Name)
		return nil
	})
	return out, err
}

func (h *Home) dropApp(ctx context.Context, in client.AppName) (node.None, error) {
	return node.None{}, h.use(ctx, func(s *session) error {
		if err := s.cloud.RemoveApp(ctx, in.Name); err != nil {
			return toldByApps(err, in.Name)
		}
		h.doorsOf(s).forget(in.Name)
		h.node.Say("the app %s was removed", in.Name)
		return nil
	})
}

func (h *Home) getAccessKeys(ctx context.Context, in client.OfApp) (out client.AccessKeys, err error) {
	err = h.use(ctx, func(s *session) error {
		if !s.cloud.HasApp(in.App) {
			return noApp(in.App)
		}
		for _, k := range s.cloud.AppKeys(in.App) {
			out.Keys = append(out.Keys, describeKey(k, h.node.Clock().Now()))
		}
		return nil
	})
	return out, err
}

// describeKey tells all of a key but its secret.
func describeKey(k cloud.AppKey, now time.Time) client.AccessKey {
	out := client.AccessKey{ID: k.ID, App: k.App, Until: k.Until, Over: k.Over(now), Note: k.Note, Created: k.Created}
	for _, r := range k.Rights {
		out.Rights = append(out.Rights, client.Right(r))
	}
	return out
}

// onlyHere refuses to hand out secrets to pages.
func onlyHere(ctx context.Context) error {
	if node.BySocket(ctx) {
		return nil
	}
	return &client.Error{Code: client.CodeDenied, Message: "no secret is shown here", Cause: "only a program of the owner on the machine itself gets it", Try: "bevy env"}
}

func (h *Home) addAccessKey(ctx context.Context, in client.AddAccessKey) (out client.AccessKey, err error) {
	if err := onlyHere(ctx); err != nil {
		return out, err
	}
	want := cloud.AppKey{App: in.App, Until: in.Until, Note: in.Note}
	for _, r := range in.Rights {
		want.Rights = append(want.Rights, cloud.AppRight(r))
	}
	if len(want.Rights) == 0 {
		want.Rights = cloud.AllRights()
	}
	err = h.use(ctx, func(s *session) error {
		k, err := s.cloud.MakeAppKey(ctx, want)
		if err != nil {
			return toldByApps(err, in.App)
		}
		out = describeKey(k, h.node.Clock().Now())
		out.Secret = string(k.Secret)
		return nil
	})
	return out, err
}

func (h *Home) dropAccessKey(ctx context.Context, in client.AccessKeyID) (node.None, error) {
	return node.None{}, h.use(ctx, func(s *session) error {
		return toldByApps(s.cloud.RevokeAppKey(ctx, in.ID), "")
	})
}

// environment tells what programs for AWS have to know, with a key of the app that
// may do everything.
func (h *Home) environment(ctx context.Context, in client.EnvironmentRequest) (out client.Environment, err error) {
	if err := onlyHere(ctx); err != nil {
		return out, err
	}
	err = h.use(ctx, func(s *session) error {
		h.keying.Lock() // or two at once would make two
		defer h.keying.Unlock()
		var use cloud.AppKey
		for _, k := range s.cloud.AppKeys(in.App) {
			if k.May("", "*", true) && k.Until.IsZero() && use.ID == "" {
				use = k
			}
		}
		if use.ID == "" {
			if use, err = s.cloud.MakeAppKey(ctx, cloud.AppKey{App: in.App, Rights: cloud.AllRights(), Note: "bevy env on " + s.cloud.DeviceName(s.cloud.Self())}); err != nil {
				return toldByApps(err, in.App)
			}
		}
		out = client.Environment{Endpoint: h.node.Address(), Region: region, AccessKey: use.ID, Secret: string(use.Secret), App: in.App}
		return nil
	})
	return out, err
}

// ParseMoment reads a time, or how long ago it was, such as "2h", "yesterday" or
// "2026-11-23T15:04".
func ParseMoment(text string, now time.Time) (time.Time, error) { return parseTime(text, now) }
