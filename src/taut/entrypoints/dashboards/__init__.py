"""What Prometheus and Grafana are given of a project: rules and dashboards, a file each for the platform and for every endpoint."""

from taut.entrypoints.dashboards.files import dashboard_files
from taut.entrypoints.dashboards.rules import PLATFORM_ALERTS, rule_groups

__all__ = ["PLATFORM_ALERTS", "dashboard_files", "rule_groups"]
