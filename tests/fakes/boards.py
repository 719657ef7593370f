"""Boards from ``tests/devices/fixtures/boards.yaml`` as the files and commands that a probe reads."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from devices.boards import Machine, Recording, plant, recorded

FIXTURES = Path(__file__).resolve().parents[1] / "devices" / "fixtures"


@cache
def entries() -> dict[str, dict[str, Any]]:
    """Every entry of the file, by name."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load((FIXTURES / "boards.yaml").read_text(encoding="utf-8"))
    return loaded


def names() -> list[str]:
    """Names of the boards."""
    return list(entries())


def expected(name: str) -> dict[str, Any]:
    """What a probe must find."""
    found: dict[str, Any] = entries()[name]["expect"]
    return found


def tegrastats_lines() -> dict[str, str]:
    """Published lines of tegrastats, by board."""
    samples = json.loads((FIXTURES / "tegrastats.json").read_text(encoding="utf-8"))
    return {sample["board"]: sample["line"] for sample in samples}


def fake_board(name: str, folder: Path) -> Machine:
    """Plant a board in an empty folder and return it as a machine."""
    plant(recording(name), folder)
    return recorded(folder)


def recording(name: str) -> Recording:
    """Files and commands of an entry."""
    entry = entries()[name]
    files = {**_identity(entry), **_zones(entry), **_power(entry), **_gpu(entry), **_disks(entry), **_system(entry)}
    for video, label in entry.get("cameras", {}).items():
        files[f"sys/class/video4linux/{video}/name"] = label
    return Recording(files | entry.get("files", {}), _commands(entry))


def _identity(entry: dict[str, Any]) -> dict[str, str]:
    files = {f"sys/class/dmi/id/{key}": text for key, text in entry.get("dmi", {}).items()}
    if "model" in entry:
        files["proc/device-tree/model"] = entry["model"] + "\0"
        files["proc/device-tree/compatible"] = "".join(f"{part}\0" for part in entry["compatible"])
    if "release" in entry:
        files["etc/nv_tegra_release"] = entry["release"]
    if "modes" in entry:
        modes = [f"< POWER_MODEL ID={number} NAME={name} >\n" for number, name in enumerate(entry["modes"])]
        files["etc/nvpmodel.conf"] = "# < POWER_MODEL ID=9 NAME=COMMENTED_OUT >\n" + "".join(modes)
    if "status" in entry:
        files["var/lib/nvpmodel/status"] = entry["status"]
    return files


def _zones(entry: dict[str, Any]) -> dict[str, str]:
    files = {}
    for number, (kind, value) in enumerate(entry["zones"].items()):
        folder = f"sys/class/thermal/thermal_zone{number}"
        files[f"{folder}/type"] = kind
        if value is not None:
            files[f"{folder}/temp"] = str(value)
    for number, (kind, value) in enumerate(entry.get("trips", {}).items()):
        files[f"sys/class/thermal/thermal_zone0/trip_point_{number}_type"] = kind
        files[f"sys/class/thermal/thermal_zone0/trip_point_{number}_temp"] = str(value)
    for number, (name, state) in enumerate(entry.get("alerts", {}).items()):
        files[f"sys/class/thermal/cooling_device{number}/type"] = f"{name}-throttle-alert"
        files[f"sys/class/thermal/cooling_device{number}/cur_state"] = str(state)
    if "throttled" in entry:
        files["sys/devices/platform/soc/soc:firmware/get_throttled"] = str(entry["throttled"])
    return files


def _power(entry: dict[str, Any]) -> dict[str, str]:
    files = {}
    for number, chip in enumerate(entry.get("hwmon", [])):
        folder = f"sys/class/hwmon/hwmon{number + 2}"
        files[f"{folder}/name"] = chip["chip"]
        files |= {f"{folder}/{counter}": str(count) for counter, count in chip.get("counts", {}).items()}
        for channel, (label, (millivolts, milliamps)) in enumerate(chip.get("rails", {}).items(), start=1):
            files[f"{folder}/in{channel}_label"] = label
            files[f"{folder}/in{channel}_input"] = str(millivolts)
            files[f"{folder}/curr{channel}_input"] = str(milliamps)
            files[f"{folder}/curr{channel}_crit_alarm"] = str(chip.get("alarm", {}).get(label, 0))
        if chip.get("sum"):
            files |= {f"{folder}/in7_label": "sum of shunt voltages", f"{folder}/in7_input": "12"}
        if "label" in chip:
            files |= {f"{folder}/label": chip["label"], f"{folder}/power1_input": str(chip["power"])}
        for channel, (label, microwatts) in enumerate(chip.get("microwatts", {}).items(), start=1):
            files[f"{folder}/in{channel}_label"] = label
            files |= {} if microwatts is None else {f"{folder}/power{channel}_input": str(microwatts)}
    for device, (address, rails) in enumerate(entry.get("iio", {}).items()):
        folder = f"sys/bus/i2c/drivers/ina3221x/{address}/iio:device{device}"
        for channel, (label, milliwatts) in enumerate(rails.items()):
            files[f"{folder}/rail_name_{channel}"] = label
            files[f"{folder}/in_power{channel}_input"] = str(milliwatts)
    return files


def _gpu(entry: dict[str, Any]) -> dict[str, str]:
    gpu = entry.get("gpu")
    if gpu is None:
        return {}
    loads = {path: str(load) for path, load in gpu.get("load", {}).items()}
    return {f"sys/class/devfreq/{gpu['name']}/cur_freq": str(gpu["hz"]), **loads}


def _disks(entry: dict[str, Any]) -> dict[str, str]:
    files = {"sys/block/loop0/size": "8", "sys/block/mmcblk0boot0/size": "8192"}
    for name, disk in entry.get("disks", {}).items():
        files[f"sys/block/{name}/size"] = str(disk["sectors"])
        files[f"sys/block/{name}/stat"] = f"10 0 80 4 20 0 {disk['written']} 9 0 12 13"
        told = {"type": "device/type", "life": "device/life_time", "rotational": "queue/rotational"}
        for key, path in {**told, "removable": "removable"}.items():
            files |= {f"sys/block/{name}/{path}": str(disk[key])} if key in disk else {}
    return files


def _system(entry: dict[str, Any]) -> dict[str, str]:
    system, disk = entry["system"], next(iter(entry.get("disks", {"mmcblk0": {}})))
    kib = system["memory_kb"]
    memory = (
        f"MemTotal:       {kib} kB\nMemFree: 100 kB\nMemAvailable:   {kib // 2} kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
    )
    files = {
        "proc/meminfo": memory,
        "proc/mounts": f"rootfs / rootfs rw 0 0\n/dev/{disk}p1 / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\n",
        "proc/stat": "cpu  1000 5 300 90000 40 0 9 0 0 0\ncpu0 500 2 150 45000 20 0 4 0 0 0\n",
        "proc/sys/kernel/osrelease": system["kernel"],
        "sys/devices/system/cpu/online": str(system["cores"]),
        **{f"sys/class/net/{name}/operstate": "up" for name in entry.get("modem", {}) if name.startswith("wwan")},
    }
    return files | ({"sys/class/rtc/rtc0/name": system["rtc"]} if "rtc" in system else {})


def _commands(entry: dict[str, Any]) -> dict[str, str]:
    system = entry["system"]
    df = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/root 60000000 24000000 33000000 43% /\n"
    commands = {
        "uname -m": f"{system['arch']}\n",
        "python3 --version": f"Python {system['python']}\n",
        "getconf GNU_LIBC_VERSION": f"glibc {system['glibc']}\n",
        "df -Pk /": df,
    }
    if "synchronised" in system:
        commands["timedatectl show -p NTPSynchronized --value"] = "yes\n" if system["synchronised"] else "no\n"
    if "nvpmodel" in entry:
        commands["nvpmodel -q"] = entry["nvpmodel"]
    if "package" in entry:
        commands["dpkg-query -W -f '${Version}' nvidia-l4t-core"] = entry["package"]
    if "modem" in entry:
        said = entry["modem"]
        lines = f"modem.generic.state : {said['state']}\nmodem.generic.signal-quality.value : {said['signal']}\n"
        commands["mmcli -m any --output-keyvalue"] = lines
    for name, disk in entry.get("disks", {}).items():
        if "used" in disk:
            commands[f"nvme smart-log -o json /dev/{name}"] = json.dumps(
                {"percent_used": disk["used"], "temperature": 310}
            )
    return commands
