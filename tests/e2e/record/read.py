"""Counts what is in recordings, by readers that are not gotracer's: duckdb, pyarrow, and Perfetto's own protobuf schema.

read.py events.parquet goroutines.parquet trace.pftrace: one JSON object on stdout.
"""

import json
import sys
from collections import Counter

import duckdb
import pyarrow.parquet
from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as perfetto

events_file, goroutines_file, trace_file = sys.argv[1:4]


def by_duckdb():
    events = duckdb.sql(f"select event, count(*) from '{events_file}' group by 1").fetchall()
    sites = duckdb.sql(
        f"""select site_function, site_file, site_line, count(*) from '{events_file}'
            where event = 'created' group by all order by all"""
    ).fetchall()
    reasons = duckdb.sql(
        f"select reason, count(*) from '{events_file}' where event = 'blocked' group by 1"
    ).fetchall()
    lives = duckdb.sql(
        f"""select site_function, site_file, site_line, count(*) filter (not first_seen), count(ended),
                   count(*) filter (ended is null), sum(parks)::bigint
            from '{goroutines_file}' group by all order by all"""
    ).fetchall()
    live = duckdb.sql(f"select count(*) from '{goroutines_file}' where ended is null and not system").fetchall()[0][0]
    times = duckdb.sql(
        f"select min(time_ns), max(time_ns), epoch_ns(min(time)), epoch_ns(max(time)) from '{events_file}'"
    ).fetchall()[0]
    return {
        "events": dict(events),
        "sites": sites,
        "reasons": dict(reasons),
        "lives": lives,
        "live": live,
        "times": times,
    }


def by_pyarrow():
    events = pyarrow.parquet.read_table(events_file)
    goroutines = pyarrow.parquet.read_table(goroutines_file)
    counts = {pair["values"]: pair["counts"] for pair in events["event"].value_counts().to_pylist()}
    metadata = pyarrow.parquet.ParquetFile(events_file)
    row_group = metadata.metadata.row_group(0)
    columns = {row_group.column(i).path_in_schema: row_group.column(i) for i in range(row_group.num_columns)}
    return {
        "events": counts,
        "goroutines": goroutines.num_rows,
        "dictionaries": [name for name, column in columns.items() if column.has_dictionary_page],
        "header": json.loads(metadata.schema_arrow.metadata[b"gotracer"]),
    }


def by_perfetto():
    trace = perfetto.Trace()
    with open(trace_file, "rb") as file:
        trace.ParseFromString(file.read())
    names, tracks, parents = {}, {}, {}
    slices, instants, flows, ends, counters = Counter(), Counter(), Counter(), Counter(), {}
    depth, problems = Counter(), []
    unknown = 0
    for packet in trace.packet:
        for part in (packet, packet.track_event, packet.track_descriptor, packet.clock_snapshot):
            unknown += len(UnknownFieldSet(part))
        for name in packet.interned_data.event_names:
            names[name.iid] = name.name
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            tracks[track.uuid] = track.name
            parents[track.uuid] = track.parent_uuid
        if packet.HasField("track_event"):
            event = packet.track_event
            if event.track_uuid not in tracks:
                problems.append(f"an event on track {event.track_uuid} before it is described")
            if event.type == event.TYPE_SLICE_BEGIN:
                slices[names[event.name_iid]] += 1
                depth[event.track_uuid] += 1
                if depth[event.track_uuid] != 1:
                    problems.append(f"two slices at once on {tracks[event.track_uuid]}")
                for flow in event.terminating_flow_ids:
                    ends[flow] += 1
            elif event.type == event.TYPE_SLICE_END:
                depth[event.track_uuid] -= 1
            elif event.type == event.TYPE_INSTANT:
                instants[names[event.name_iid]] += 1
                for flow in event.flow_ids:
                    flows[flow] += 1
            elif event.type == event.TYPE_COUNTER:
                counters[tracks[event.track_uuid]] = event.counter_value
    if unknown:
        problems.append(f"{unknown} fields that the schema does not know")
    if flows != ends:
        problems.append("flows do not end where they should")
    goroutines = Counter()
    for uuid, name in tracks.items():
        if name.startswith("goroutine "):
            goroutines[tracks.get(parents[uuid], "")] += 1
    return {
        "packets": len(trace.packet),
        "slices": slices,
        "instants": instants,
        "flows": len(flows),
        "goroutines": goroutines,
        "counters": counters,
        "problems": problems[:5],
    }


json.dump({"duckdb": by_duckdb(), "pyarrow": by_pyarrow(), "perfetto": by_perfetto()}, sys.stdout)
