package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

func admin(o *order) error {
	admin, err := o.admin()
	if err != nil {
		return err
	}
	defer admin.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	switch o.Op {
	case "create":
		_, err := admin.CreateTopic(ctx, o.Partitions, o.Replicas, o.Configs, o.Topic)
		return err
	case "delete":
		answers, err := admin.DeleteTopics(ctx, o.Topic)
		if err != nil {
			return err
		}
		return answers[o.Topic].Err
	case "describe":
		found, err := admin.ListTopics(ctx, o.Topic)
		if err != nil {
			return err
		}
		if err := found[o.Topic].Err; err != nil {
			return err
		}
		leaders := []int32{}
		for _, partition := range found[o.Topic].Partitions.Sorted() {
			leaders = append(leaders, partition.Leader)
		}
		say("topic", event{"partitions": len(leaders), "leaders": leaders})
	case "configs":
		found, err := admin.DescribeTopicConfigs(ctx, o.Topic)
		if err != nil {
			return err
		}
		config, err := found.On(o.Topic, nil)
		if err != nil {
			return err
		}
		if config.Err != nil {
			return config.Err
		}
		values := map[string]*string{}
		for _, entry := range config.Configs {
			values[entry.Key] = entry.Value
		}
		say("configs", event{"values": values})
	case "alter":
		changes := []kadm.AlterConfig{}
		for name, value := range o.Configs {
			changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: value})
		}
		answers, err := admin.AlterTopicConfigs(ctx, changes, o.Topic)
		if err != nil {
			return err
		}
		return answers[0].Err
	case "groups":
		found, err := admin.ListGroups(ctx)
		if err != nil {
			return err
		}
		say("groups", event{"names": found.Groups()})
	case "delete_group":
		answers, err := admin.DeleteGroups(ctx, o.Group)
		if err != nil {
			return err
		}
		return answers[o.Group].Err
	default:
		return fmt.Errorf("there is no admin operation %q", o.Op)
	}
	return nil
}
