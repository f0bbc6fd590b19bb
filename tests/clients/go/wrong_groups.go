package main

import (
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func (i *inquiry) findCoordinator(key string, kind int8) (int16, error) {
	r := kmsg.NewPtrFindCoordinatorRequest()
	r.Version, r.CoordinatorType, r.CoordinatorKeys = 5, kind, []string{key}
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	found := answer.(*kmsg.FindCoordinatorResponse)
	if len(found.Coordinators) == 0 {
		return found.ErrorCode, nil
	}
	return found.Coordinators[0].ErrorCode, nil
}

func (i *inquiry) heartbeat(group, member string) (int16, error) {
	r := kmsg.NewPtrHeartbeatRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 4, group, member, 1
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.HeartbeatResponse).ErrorCode, nil
}

// join asks to become a member of a group of its own.
func (i *inquiry) join(change func(*kmsg.JoinGroupRequest)) (int16, error) {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group = 9, i.mark+"-join"
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis, r.ProtocolType = 10_000, 10_000, "consumer"
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name = "range"
	r.Protocols = append(r.Protocols, protocol)
	change(r)
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.JoinGroupResponse).ErrorCode, nil
}

func joining(change func(*kmsg.JoinGroupRequest)) func(*inquiry) (int16, error) {
	return func(i *inquiry) (int16, error) { return i.join(change) }
}

// commitAs commits offset 1 of partition 0.
func (i *inquiry) commitAs(group string, change func(*kmsg.OffsetCommitRequest)) (int16, error) {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version, r.Group, r.Generation = 9, group, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = i.topic
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Offset = 1
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	change(r)
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode, nil
}

func committing(change func(*kmsg.OffsetCommitRequest)) func(*inquiry) (int16, error) {
	return func(i *inquiry) (int16, error) { return i.commitAs(i.mark+"-commit", change) }
}

func (i *inquiry) offsetDelete(group, topic string) (int16, error) {
	r := kmsg.NewPtrOffsetDeleteRequest()
	r.Group = group
	t := kmsg.NewOffsetDeleteRequestTopic()
	t.Topic = topic
	t.Partitions = append(t.Partitions, kmsg.NewOffsetDeleteRequestTopicPartition())
	r.Topics = append(r.Topics, t)
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	found := answer.(*kmsg.OffsetDeleteResponse)
	if found.ErrorCode != 0 || len(found.Topics) == 0 {
		return found.ErrorCode, nil
	}
	return found.Topics[0].Partitions[0].ErrorCode, nil
}

func (i *inquiry) offsetFetch(group, topic string) (int16, error) {
	r := kmsg.NewPtrOffsetFetchRequest()
	r.Version = 9
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	t := kmsg.NewOffsetFetchRequestGroupTopic()
	t.Topic, t.Partitions = topic, []int32{0}
	g.Topics = append(g.Topics, t)
	r.Groups = append(r.Groups, g)
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	found := answer.(*kmsg.OffsetFetchResponse).Groups[0]
	if found.ErrorCode != 0 {
		return found.ErrorCode, nil
	}
	return found.Topics[0].Partitions[0].ErrorCode, nil
}

func (i *inquiry) describeGroup(version int16, group string) (int16, error) {
	r := kmsg.NewPtrDescribeGroupsRequest()
	r.Version, r.Groups = version, []string{group}
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.DescribeGroupsResponse).Groups[0].ErrorCode, nil
}

var groupQuestions = []question{
	{"find-coordinator-empty-group", func(i *inquiry) (int16, error) { return i.findCoordinator("", 0) }},
	{"find-coordinator-unknown-kind", func(i *inquiry) (int16, error) { return i.findCoordinator("x", 9) }},
	{"join-without-member-id", joining(func(*kmsg.JoinGroupRequest) {})},
	{"join-empty-group", joining(func(r *kmsg.JoinGroupRequest) { r.Group = "" })},
	{"join-unknown-member", joining(func(r *kmsg.JoinGroupRequest) { r.MemberID = "stranger" })},
	{"join-unknown-member-unknown-group", joining(func(r *kmsg.JoinGroupRequest) { r.Group, r.MemberID = r.Group+"-none", "stranger" })},
	{"join-session-too-short", joining(func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 5_999 })},
	{"join-session-too-long", joining(func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1_800_001 })},
	{"join-no-protocol", joining(func(r *kmsg.JoinGroupRequest) { r.Protocols = nil })},
	{"join-no-protocol-type", joining(func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "" })},
	{"heartbeat-unknown-group", func(i *inquiry) (int16, error) { return i.heartbeat(i.mark+"-none", "x") }},
	{"heartbeat-empty-group", func(i *inquiry) (int16, error) { return i.heartbeat("", "x") }},
	{"sync-unknown-group", func(i *inquiry) (int16, error) {
		r := kmsg.NewPtrSyncGroupRequest()
		kind, protocol := "consumer", "range"
		r.Version, r.Group, r.MemberID, r.Generation, r.ProtocolType, r.Protocol = 5, i.mark+"-none", "x", 1, &kind, &protocol
		answer, err := i.ask(r)
		if err != nil {
			return 0, err
		}
		return answer.(*kmsg.SyncGroupResponse).ErrorCode, nil
	}},
	{"leave-unknown-member", func(i *inquiry) (int16, error) {
		r := kmsg.NewPtrLeaveGroupRequest()
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = "stranger"
		r.Version, r.Group, r.Members = 5, i.mark+"-none", append(r.Members, member)
		answer, err := i.ask(r)
		if err != nil {
			return 0, err
		}
		found := answer.(*kmsg.LeaveGroupResponse)
		if found.ErrorCode != 0 || len(found.Members) == 0 {
			return found.ErrorCode, nil
		}
		return found.Members[0].ErrorCode, nil
	}},
	{"commit-without-a-group-before", committing(func(*kmsg.OffsetCommitRequest) {})},
	{"commit-empty-group", committing(func(r *kmsg.OffsetCommitRequest) { r.Group = "" })},
	{"commit-generation-of-unknown-group", committing(func(r *kmsg.OffsetCommitRequest) {
		r.Group, r.Generation, r.MemberID = r.Group+"-none", 3, "x"
	})},
	{"commit-unknown-member", committing(func(r *kmsg.OffsetCommitRequest) { r.Generation, r.MemberID = 3, "x" })},
	{"commit-too-much-metadata", committing(func(r *kmsg.OffsetCommitRequest) {
		metadata := strings.Repeat("m", 4097)
		r.Topics[0].Partitions[0].Metadata = &metadata
	})},
	{"commit-unknown-topic", committing(func(r *kmsg.OffsetCommitRequest) { r.Topics[0].Topic = "no-such-topic" })},
	{"commit-unknown-partition", committing(func(r *kmsg.OffsetCommitRequest) { r.Topics[0].Partitions[0].Partition = 99 })},
	{"commit-negative-offset", committing(func(r *kmsg.OffsetCommitRequest) { r.Topics[0].Partitions[0].Offset = -5 })},
	{"commit-beyond-the-end", committing(func(r *kmsg.OffsetCommitRequest) { r.Topics[0].Partitions[0].Offset = 1 << 40 })},
	{"offset-fetch-unknown-group", func(i *inquiry) (int16, error) { return i.offsetFetch(i.mark+"-none", i.topic) }},
	{"offset-fetch-unknown-topic", func(i *inquiry) (int16, error) { return i.offsetFetch(i.mark+"-commit", "no-such-topic") }},
	{"offset-fetch-empty-group", func(i *inquiry) (int16, error) { return i.offsetFetch("", i.topic) }},
	{"describe-unknown-group-v5", func(i *inquiry) (int16, error) { return i.describeGroup(5, i.mark+"-none") }},
	{"describe-unknown-group-v6", func(i *inquiry) (int16, error) { return i.describeGroup(6, i.mark+"-none") }},
	{"describe-empty-name", func(i *inquiry) (int16, error) { return i.describeGroup(5, "") }},
	{"offset-delete-unknown-group", func(i *inquiry) (int16, error) { return i.offsetDelete(i.mark+"-none", i.topic) }},
	{"offset-delete-unknown-topic", func(i *inquiry) (int16, error) { return i.offsetDelete(i.mark+"-commit", "no-such-topic") }},
	{"offset-delete", func(i *inquiry) (int16, error) { return i.offsetDelete(i.mark+"-commit", i.topic) }},
	{"delete-unknown-group", func(i *inquiry) (int16, error) { return i.deleteGroup(i.mark + "-none") }},
	{"delete-group-empty-name", func(i *inquiry) (int16, error) { return i.deleteGroup("") }},
	{"init-producer-id", func(i *inquiry) (int16, error) {
		r := kmsg.NewPtrInitProducerIDRequest()
		r.Version = 4
		for {
			answer, err := i.ask(r)
			if err != nil {
				return 0, err
			}
			// Kafka fetches its first block of ids when the first is asked for.
			if code := answer.(*kmsg.InitProducerIDResponse).ErrorCode; code != 14 {
				return code, nil
			}
			time.Sleep(50 * time.Millisecond)
		}
	}},
}

func (i *inquiry) deleteGroup(group string) (int16, error) {
	r := kmsg.NewPtrDeleteGroupsRequest()
	r.Version, r.Groups = 2, []string{group}
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.DeleteGroupsResponse).Groups[0].ErrorCode, nil
}
