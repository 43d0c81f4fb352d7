# ruff: noqa: N802  # the names are those of the protocol
"""
What of a Flyte cluster ``pyflyte`` talks to when it registers and starts something: flytekit has no dry run of that.

It keeps what it is sent, and gives back what it was sent before.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from flyteidl.admin import execution_pb2, launch_plan_pb2, task_pb2, workflow_pb2
from flyteidl.core import compiler_pb2, identifier_pb2
from flyteidl.core import execution_pb2 as phases
from flyteidl.service import admin_pb2_grpc, dataproxy_pb2, dataproxy_pb2_grpc


class Admin(admin_pb2_grpc.AdminServiceServicer, dataproxy_pb2_grpc.DataProxyServiceServicer):
    """
    Keeps tasks, workflows, launch plans and executions, and the files that are uploaded in a folder.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder):
        self.folder = folder
        self.config = folder / "config.yaml"
        self.tasks, self.workflows, self.plans = {}, {}, {}
        self.executions = []

    def __enter__(self):
        self.files = ThreadingHTTPServer(("localhost", 0), partial(_Upload, self.folder))
        self.thread = threading.Thread(target=self.files.serve_forever)
        self.thread.start()
        self.server = grpc.server(ThreadPoolExecutor(4))
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self, self.server)
        dataproxy_pb2_grpc.add_DataProxyServiceServicer_to_server(self, self.server)
        port = self.server.add_insecure_port("localhost:0")
        self.server.start()
        self.config.write_text(f"admin:\n  endpoint: dns:///localhost:{port}\n  insecure: true\n")
        return self

    def __exit__(self, *_):
        self.server.stop(None).wait()
        self.files.shutdown()
        self.thread.join()
        self.files.server_close()

    def CreateUploadLocation(self, request, _context):
        """
        Where the code goes, and where pods find it.
        """
        url = f"http://localhost:{self.files.server_address[1]}/{request.filename}"
        return dataproxy_pb2.CreateUploadLocationResponse(signed_url=url, native_url=f"file://{self.folder}/{request.filename}")

    def CreateTask(self, request, _context):
        """
        Keep a task.
        """
        self.tasks[request.id.name] = request
        return task_pb2.TaskCreateResponse()

    def CreateWorkflow(self, request, _context):
        """
        Keep a workflow.
        """
        self.workflows[request.id.name] = request
        return workflow_pb2.WorkflowCreateResponse()

    def CreateLaunchPlan(self, request, _context):
        """
        Keep a launch plan.
        """
        self.plans[request.id.name] = request
        return launch_plan_pb2.LaunchPlanCreateResponse()

    def CreateExecution(self, request, _context):
        """
        Keep what is to run.
        """
        self.executions.append(request)
        name = identifier_pb2.WorkflowExecutionIdentifier(project=request.project, domain=request.domain, name="f0")
        return execution_pb2.ExecutionCreateResponse(id=name)

    def GetExecution(self, request, _context):
        """
        That it has not begun.
        """
        [found] = self.executions
        closure = execution_pb2.ExecutionClosure(phase=phases.WorkflowExecution.QUEUED)
        return execution_pb2.Execution(id=request.id, spec=found.spec, closure=closure)

    def GetTask(self, request, _context):
        """
        What was kept.
        """
        found = self.tasks[request.id.name]
        compiled = compiler_pb2.CompiledTask(template=found.spec.template)
        return task_pb2.Task(id=found.id, closure=task_pb2.TaskClosure(compiled_task=compiled))

    def GetWorkflow(self, request, _context):
        """
        What was kept, with its tasks.
        """
        found = self.workflows[request.id.name]
        template = found.spec.template
        template.id.CopyFrom(found.id)
        tasks = [compiler_pb2.CompiledTask(template=task.spec.template) for task in self.tasks.values()]
        closure = compiler_pb2.CompiledWorkflowClosure(primary=compiler_pb2.CompiledWorkflow(template=template), tasks=tasks)
        return workflow_pb2.Workflow(id=found.id, closure=workflow_pb2.WorkflowClosure(compiled_workflow=closure))

    def GetLaunchPlan(self, request, _context):
        """
        What was kept.
        """
        found = self.plans[request.id.name]
        return launch_plan_pb2.LaunchPlan(id=found.id, spec=found.spec)


class _Upload(BaseHTTPRequestHandler):
    def __init__(self, folder, *arguments):
        self.folder = folder
        super().__init__(*arguments)

    def do_PUT(self):
        """
        Keep a file.
        """
        (self.folder / self.path.strip("/")).write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        """
        Say nothing.
        """
