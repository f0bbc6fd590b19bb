package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func read(o *order) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(o.TimeoutS)*time.Second)
	defer cancel()
	starts, ends := map[int32]int64{}, map[int32]int64{}
	if err := o.places(ctx, starts, ends); err != nil {
		return err
	}
	from, behind := map[int32]kgo.Offset{}, map[int32]bool{}
	for p, first := range starts {
		say("range", event{"p": p, "first": first, "end": ends[p]})
		from[p] = kgo.NewOffset().At(first)
		if o.From == "start" {
			from[p] = kgo.NewOffset().AtStart()
		}
		if first < ends[p] {
			behind[p] = true
		}
	}
	client, err := kgo.NewClient(append(o.quick(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{o.Topic: from}),
		kgo.FetchMaxWait(100*time.Millisecond),
	)...)
	if err != nil {
		return err
	}
	defer client.Close()
	say("ready", nil)
	count := int64(0)
	for (o.From == "end" && count < o.Count) || (o.From != "end" && len(behind) > 0) {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("%d records read, partitions %v are not at their end", count, slices.Collect(maps.Keys(behind)))
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			sayRecord(r)
			count++
			if r.Offset+1 >= ends[r.Partition] {
				delete(behind, r.Partition)
			}
		})
	}
	return nil
}

// places finds where each partition is to be read from, and where it ends now.
func (o *order) places(ctx context.Context, starts, ends map[int32]int64) error {
	plain, err := kgo.NewClient(o.quick()...)
	if err != nil {
		return err
	}
	defer plain.Close()
	admin := kadm.NewClient(plain)
	listed, err := admin.ListEndOffsets(ctx, o.Topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return err
	}
	listed.Each(func(at kadm.ListedOffset) { ends[at.Partition] = at.Offset })
	switch o.From {
	case "end":
		maps.Copy(starts, ends)
		return nil
	case "time":
		listed, err = admin.ListOffsetsAfterMilli(ctx, o.TimestampMs, o.Topic)
	default:
		listed, err = admin.ListStartOffsets(ctx, o.Topic)
	}
	if err == nil {
		err = listed.Error()
	}
	listed.Each(func(at kadm.ListedOffset) { starts[at.Partition] = at.Offset })
	return err
}

func group(o *order) error {
	var lock sync.Mutex
	following := map[int32]kgo.EpochOffset{}
	commit := func(ctx context.Context, client *kgo.Client) {
		lock.Lock()
		offers := maps.Clone(following)
		lock.Unlock()
		if len(offers) == 0 {
			return
		}
		client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{o.Topic: offers},
			func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
				if err != nil {
					say("not-committed", event{"e": err.Error()})
					return
				}
				for _, topic := range answer.Topics {
					for _, part := range topic.Partitions {
						if part.ErrorCode == 0 {
							say("committed", event{"p": part.Partition, "o": offers[part.Partition].Offset})
						} else {
							say("not-committed", event{"e": fmt.Sprint(part.ErrorCode)})
						}
					}
				}
			})
	}
	forget := func() {
		lock.Lock()
		clear(following)
		lock.Unlock()
	}
	tell := func(kind string, parts map[string][]int32) {
		// A cooperative client reports an empty change too; with a range assignor it is nobody's news.
		if own := parts[o.Topic]; len(own) > 0 {
			slices.Sort(own)
			say(kind, event{"parts": own})
		}
	}
	options := append(o.quick(),
		kgo.ClientID(o.Client),
		kgo.ConsumerGroup(o.Group),
		kgo.ConsumeTopics(o.Topic),
		kgo.Balancers(kgo.RangeBalancer()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(time.Duration(o.SessionMs)*time.Millisecond),
		kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.RebalanceTimeout(30*time.Second),
		kgo.FetchMaxWait(100*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			forget()
			tell("assigned", parts)
		}),
		kgo.OnPartitionsRevoked(func(ctx context.Context, client *kgo.Client, parts map[string][]int32) {
			commit(ctx, client)
			forget()
			tell("revoked", parts)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			forget()
			tell("revoked", parts)
		}),
	)
	if o.Instance != "" {
		options = append(options, kgo.InstanceID(o.Instance))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	sinceCommit := int64(0)
	for o.stopped.Err() == nil {
		fetches := client.PollRecords(o.stopped, 100)
		fetches.EachError(func(_ string, _ int32, err error) {
			if !errors.Is(err, context.Canceled) {
				say("note", event{"e": err.Error()})
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			sayRecord(r)
			lock.Lock()
			following[r.Partition] = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1}
			lock.Unlock()
			sinceCommit++
		})
		if sinceCommit >= o.CommitEvery {
			commit(context.Background(), client)
			sinceCommit = 0
		}
		client.AllowRebalance()
	}
	return nil
}

func (o *order) admin() (*kadm.Client, error) {
	client, err := kgo.NewClient(o.quick()...)
	if err != nil {
		return nil, err
	}
	return kadm.NewClient(client), nil
}

func commit(o *order) error {
	admin, err := o.admin()
	if err != nil {
		return err
	}
	defer admin.Close()
	offers := kadm.Offsets{}
	for name, offer := range o.Offsets {
		p, err := strconv.ParseInt(name, 10, 32)
		if err != nil {
			return err
		}
		offers.Add(kadm.Offset{
			Topic: o.Topic, Partition: int32(p), At: int64(offer[0].(float64)), LeaderEpoch: -1, Metadata: offer[1].(string),
		})
	}
	answers, err := admin.CommitOffsets(context.Background(), o.Group, offers)
	if err != nil {
		return err
	}
	return answers.Error()
}

func committed(o *order) error {
	admin, err := o.admin()
	if err != nil {
		return err
	}
	defer admin.Close()
	found, err := admin.FetchOffsets(context.Background(), o.Group)
	if err != nil {
		return err
	}
	for p := range o.Partitions {
		at, metadata := int64(-1), ""
		if offset, known := found.Lookup(o.Topic, p); known {
			at, metadata = offset.At, offset.Metadata
		}
		say("committed", event{"p": p, "o": at, "m": metadata})
	}
	return nil
}
